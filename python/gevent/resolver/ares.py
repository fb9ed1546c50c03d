"""The resolver that goes by the name ``ares``: :mod:`gevent.resolver.native`, as c-ares was used.

There is no c-ares here. The constructor's arguments and the ``GEVENTARES_*`` variables are
understood; see :class:`gevent.resolver.native.Resolver` for what they do.
"""

from _socket import EAI_AGAIN, gaierror, herror

from gevent.resolver.cares import channel
from gevent.resolver.native import Resolver as _NativeResolver

__all__ = ["Resolver"]

#: What c-ares calls a question that nobody has answered.
_ARES_ETIMEOUT = 12


class Resolver(_NativeResolver):
    """:class:`gevent.resolver.native.Resolver`, with the errors of a look-up by c-ares."""

    #: For those who want a channel of their own.
    cares_class = channel

    def __init__(self, hub=None, use_environ=True, **kwargs):
        super().__init__(hub, use_environ, **kwargs)

    def gethostbyname_ex(self, hostname, family=2):
        try:
            return super().gethostbyname_ex(hostname, family)
        except gaierror as ex:
            raise self._translated(ex) from None

    def gethostbyname(self, hostname, family=2):
        try:
            return super().gethostbyname(hostname, family)
        except gaierror as ex:
            raise self._translated(ex) from None

    @staticmethod
    def _translated(ex):
        if ex.errno != EAI_AGAIN:
            return ex
        return herror(_ARES_ETIMEOUT, "ARES_ETIMEOUT: Timeout while contacting DNS servers")
