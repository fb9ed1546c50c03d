"""``channel``: look-ups that call back, as upstream's binding of c-ares offered them.

There is no c-ares here: the questions are those of :mod:`gevent.resolver.native`, asked by a
greenlet for each call.
"""

from _socket import gaierror, herror

from gevent._core import had_no_stack
from gevent.greenlet import Greenlet
from gevent.resolver.native import Resolver as _Resolver

__all__ = ["channel"]


class Result:
    """What a callback is handed: a value, or the exception in its place."""

    __slots__ = ("exception", "value")

    def __init__(self, value=None, exception=None):
        self.value = value
        self.exception = exception

    def __repr__(self):
        if self.exception is None:
            return "%s(%r)" % (type(self).__name__, self.value)
        return "%s(exception=%r)" % (type(self).__name__, self.exception)

    def successful(self):
        """Whether there is a value."""
        return self.exception is None

    def get(self):
        """The value; or raises."""
        if self.exception is not None:
            raise self.exception
        return self.value


class ares_host_result(tuple):
    """``(name, aliases, addresses)`` of a host, with their :attr:`family`."""

    def __new__(cls, family, iterable):
        self = super().__new__(cls, iterable)
        self.family = family
        return self

    def __getnewargs__(self):
        return (self.family, tuple(self))


class channel:
    """A channel of questions; each method calls *callback* with a :class:`Result` later.

    The keyword arguments are those of :class:`gevent.resolver.native.Resolver`.
    """

    #: The loop that it was made for.
    loop = None

    def __init__(self, loop, **options):
        self.loop = loop
        self._options = options
        self._resolver = _Resolver(use_environ=False, **options)
        self._asking = set()

    def __repr__(self):
        return "<%s at 0x%x %r>" % (type(self).__name__, id(self), self._resolver)

    def set_servers(self, servers=None):
        """Ask *servers*, a list or a text with commas; those of the system if there are none."""
        self._resolver = _Resolver(use_environ=False, **{**self._options, "servers": servers})

    def destroy(self):
        """Drop all questions that are not answered; their callbacks are not called."""
        self._resolver = None
        for greenlet in list(self._asking):
            greenlet.kill(block=False)

    def _ask(self, callback, function, *args):
        if self._resolver is None:
            raise gaierror("this ares channel has been destroyed")

        def ask():
            try:
                result = Result(function(self._resolver)(*args))
            except (OSError, gaierror, herror, UnicodeError) as ex:
                result = Result(exception=ex)
            callback(result)

        def ended(greenlet):
            self._asking.discard(greenlet)
            if had_no_stack(greenlet):
                callback(Result(exception=greenlet.exception))

        greenlet = Greenlet.spawn(ask)
        self._asking.add(greenlet)
        greenlet.rawlink(ended)

    def getaddrinfo(self, callback, name, service, family=0, type=0, proto=0, flags=0):
        self._ask(callback, lambda r: r.getaddrinfo, name, service, family, type, proto, flags)

    def gethostbyname(self, callback, name, family=2):
        def ask(resolver):
            return lambda: ares_host_result(family, resolver.gethostbyname_ex(name, family))

        self._ask(callback, ask)

    def gethostbyaddr(self, callback, addr):
        def ask(resolver):
            return lambda: ares_host_result(None, resolver.gethostbyaddr(addr))

        self._ask(callback, ask)

    def getnameinfo(self, callback, sockaddr, flags):
        self._ask(callback, lambda r: r.getnameinfo, sockaddr, flags)
