"""The standard library's `time`, with a `sleep` that lets other greenlets run."""

import time as __time__

from gevent._util import copy_globals
from gevent.hub import sleep  # noqa: F401 (what this module is about)

__implements__ = __all__ = ["sleep"]
__imports__ = copy_globals(__time__, globals(), names_to_ignore=__implements__)
