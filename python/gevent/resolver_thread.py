"""`gevent.resolver.thread` under its old name."""

import warnings

import gevent.resolver.thread as _resolver
from gevent.resolver.thread import *  # noqa: F403 (an alias for the whole module)

warnings.warn(
    "gevent.resolver_thread is deprecated and will be removed in 1.5. "
    "Use gevent.resolver.thread instead.",
    DeprecationWarning,
    stacklevel=2,
)
__all__ = _resolver.__all__
del _resolver, warnings
