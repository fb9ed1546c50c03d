"""The resolver that goes by the name ``dnspython``: :mod:`gevent.resolver.native`.

dnspython is not used.
"""

from gevent.resolver.native import Resolver as _NativeResolver

__all__ = ["Resolver"]


class Resolver(_NativeResolver):
    """:class:`gevent.resolver.native.Resolver` under another name."""
