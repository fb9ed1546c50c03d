"""The resolver that goes by the name ``ares``.

There is no c-ares here: lookups are the system's, as in :mod:`gevent.resolver.thread`.
"""

import warnings

from gevent.resolver.thread import Resolver as _ThreadResolver

__all__ = ["Resolver"]


class Resolver(_ThreadResolver):
    """:class:`gevent.resolver.thread.Resolver`, with the constructor of the c-ares one.

    Servers, timeouts and the other options of c-ares are the system's own affair; whoever passes
    some is warned that they have no effect.
    """

    def __init__(self, hub=None, use_environ=True, **kwargs):
        super().__init__(hub)
        if kwargs:
            warnings.warn(
                "The system resolves names; of no effect: %s" % ", ".join(sorted(kwargs)),
                RuntimeWarning,
                stacklevel=2,
            )
