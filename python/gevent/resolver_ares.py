"""`gevent.resolver.ares` under its old name."""

import warnings

import gevent.resolver.ares as _resolver
from gevent.resolver.ares import *  # noqa: F403 (an alias for the whole module)

warnings.warn(
    "gevent.resolver_ares is deprecated and will be removed in 1.5. "
    "Use gevent.resolver.ares instead.",
    DeprecationWarning,
    stacklevel=2,
)
__all__ = _resolver.__all__
del _resolver, warnings
