"""Names looked up by the system, right here, while everybody waits."""

import _socket

__all__ = ["Resolver"]


class Resolver:
    """The plain functions of the C library: to debug with, or where a local cache answers."""

    def __init__(self, hub=None):
        pass

    def close(self):
        """There is nothing to release."""

    gethostbyname = staticmethod(_socket.gethostbyname)
    gethostbyname_ex = staticmethod(_socket.gethostbyname_ex)
    getaddrinfo = staticmethod(_socket.getaddrinfo)
    gethostbyaddr = staticmethod(_socket.gethostbyaddr)
    getnameinfo = staticmethod(_socket.getnameinfo)
    #: What upstream's loop over the five leaves behind.
    method = "getnameinfo"
