"""`gevent.resolver.cares` under its old name."""

import gevent.resolver.cares as _cares
from gevent.resolver.cares import *  # noqa: F403 (an alias for the whole module)

__all__ = _cares.__all__
del _cares
