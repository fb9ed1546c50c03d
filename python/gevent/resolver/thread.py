"""Names looked up by the system, in the hub's thread pool."""

import _socket

from gevent.hub import get_hub

__all__ = ["Resolver"]


class Resolver:
    """Answers exactly as the C library does, whatever that is configured to ask.

    As many lookups run at a time as the pool has threads.
    """

    def __init__(self, hub=None):
        if hub is None:
            hub = get_hub()
        self.pool = hub.threadpool
        if _socket.gaierror not in hub.NOT_ERROR:
            # That a name is not known is an answer; the hub need not print it.
            hub.NOT_ERROR += (_socket.gaierror, _socket.herror)

    def __repr__(self):
        return "<%s.%s at 0x%x pool=%r>" % (
            type(self).__module__,
            type(self).__name__,
            id(self),
            self.pool,
        )

    def close(self):
        """The pool belongs to the hub."""

    # The C functions are looked up at each call: they can be replaced for a test.

    def gethostbyname(self, *args):
        return self.pool.apply(_socket.gethostbyname, args)

    def gethostbyname_ex(self, *args):
        return self.pool.apply(_socket.gethostbyname_ex, args)

    def getaddrinfo(self, *args, **kwargs):
        return self.pool.apply(_socket.getaddrinfo, args, kwargs)

    def gethostbyaddr(self, *args, **kwargs):
        return self.pool.apply(_socket.gethostbyaddr, args, kwargs)

    def getnameinfo(self, *args, **kwargs):
        return self.pool.apply(_socket.getnameinfo, args, kwargs)
