"""`gevent.core` under the name of upstream's CFFI libev loop."""

from gevent import core
from gevent._util import copy_globals

copy_globals(core, globals())

__all__ = core.__all__
