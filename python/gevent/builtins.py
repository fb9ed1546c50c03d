"""The names of `builtins`. None of them has to be replaced.

Once ``__import__`` was, so that greenlets did not meet in a half-imported module. The interpreter
now has a lock for each module, which monkey-patching makes a lock of greenlets.
"""

import builtins as __gbuiltins__

from gevent._compat import imp_acquire_lock, imp_release_lock
from gevent._util import copy_globals
from gevent.lock import RLock

__target__ = "builtins"
__implements__ = __all__ = []

__import__ = _import = __gbuiltins__.__import__


def _unlock_imports():
    """Do nothing: there is no lock for all imports to give up."""


def _lock_imports():
    """Do nothing: there is no lock for all imports to take."""


__imports__ = copy_globals(__gbuiltins__, globals(), names_to_ignore=__implements__)

# Upstream's lock for imports is made of these, and they can be imported from here.
_EXPORTED = (RLock, imp_acquire_lock, imp_release_lock)
