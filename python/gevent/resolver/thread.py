"""Names looked up by the system, in threads of their own."""

import _socket

from gevent.hub import get_hub

__all__ = ["Resolver"]

#: How many look-ups run at a time. They wait for the network and not for a processor: while a
#: name server is down, each takes its thread for 10 seconds or more, and the ten threads of the
#: hub's pool would hold up every other name, and every file. Threads are started when there is
#: work for them, and a second without work ends them.
MAX_THREADS = 128
_IDLE = 1.0


_NUMERIC = frozenset("0123456789abcdefABCDEF.:")


def _looks_numeric(host):
    """Whether *host* may be an address: there are names that look so, and they only cost a try."""
    return (
        isinstance(host, str)
        and _NUMERIC.issuperset(host)
        and host[:1] != ""
        and (host[-1].isdigit() or ":" in host)
    )


class Resolver:
    """Answers exactly as the C library does, whatever that is configured to ask.

    Look-ups have a pool of their own, so that they and what else the hub's pool does (files,
    blocking calls) do not wait for each other. A class of pool that was chosen by
    ``GEVENT_THREADPOOL`` is used here too.
    """

    def __init__(self, hub=None):
        if hub is None:
            hub = get_hub()
        self.pool = hub.threadpool_class(MAX_THREADS, hub=hub, idle_task_timeout=_IDLE)
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
        """End the threads, once they are done."""
        self.pool.kill()

    def _on_fork(self):
        # The threads stayed in the parent.
        self.pool._on_fork()

    # What is a number already is answered here: for that no file is read and nobody asked, and
    # each connection to an address would cost two trips between threads.
    # The C functions are looked up at each call: they can be replaced for a test.

    def gethostbyname(self, *args):
        return self.pool.apply(_socket.gethostbyname, args)

    def gethostbyname_ex(self, *args):
        return self.pool.apply(_socket.gethostbyname_ex, args)

    def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        args = (host, port, family, type, proto, flags)
        if _looks_numeric(host) and (port is None or isinstance(port, int)):
            try:
                return _socket.getaddrinfo(*args[:5], flags | _socket.AI_NUMERICHOST)
            except _socket.gaierror:
                # It was none, or is refused for a reason that the C library shall give.
                pass
        return self.pool.apply(_socket.getaddrinfo, args)

    def gethostbyaddr(self, *args, **kwargs):
        return self.pool.apply(_socket.gethostbyaddr, args, kwargs)

    def getnameinfo(self, *args, **kwargs):
        return self.pool.apply(_socket.getnameinfo, args, kwargs)
