"""The resolver that goes by the name ``dnspython``.

dnspython is not used: lookups are the system's, as in :mod:`gevent.resolver.thread`.
"""

from gevent.resolver.thread import Resolver as _ThreadResolver

__all__ = ["Resolver"]


class Resolver(_ThreadResolver):
    """:class:`gevent.resolver.thread.Resolver` under another name."""
