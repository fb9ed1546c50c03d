"""``WSGIServer``: listens, and serves each connection by a handler in a greenlet."""

import sys

from gevent import socket, spawn_later
from gevent._config import word_of
from gevent.pywsgi import _lingering
from gevent.pywsgi._environ import WSGISecureEnviron
from gevent.pywsgi._handler import WSGIHandler
from gevent.pywsgi._logs import LoggingLogAdapter, _NoopLog
from gevent.pywsgi._reading import max_request_line
from gevent.server import StreamServer

__all__ = ["WSGIServer"]

#: What a connection may wait for and send, unless the server says otherwise. Seconds and bytes.
_LENIENCY = ("strict", "tolerant", "compatible", "upstream")


class WSGIServer(StreamServer):
    """An HTTP/1.1 server for WSGI applications.

    :param listener: as :class:`gevent.server.StreamServer` takes it; so are *backlog*, *spawn*
        and the arguments for TLS.
    :param application: what is called for each request.
    :param log: where a line about each request goes: an object with ``write``, a logger, None for
        nowhere, ``'default'`` for standard error.
    :param error_log: the same for errors of the server and for ``wsgi.errors``.
    :param handler_class: in place of :attr:`handler_class`.
    :param environ: what every environ begins with, besides :attr:`base_env`.
    """

    #: Serves one connection: :class:`WSGIHandler` or a subclass of it.
    handler_class = WSGIHandler

    log = None
    error_log = None

    #: Of the environ that applications get. PEP 3333 wants a plain dict.
    environ_class = dict

    #: Of the environ that error reports print.
    secure_environ_class = WSGISecureEnviron

    base_env = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": "gevent/26.9 Python/%d.%d" % sys.version_info[:2],
        "SCRIPT_NAME": "",
        "wsgi.version": (1, 0),
        # One request at a time runs Python, but others run in between: at every wait.
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }

    # Limits. Each can be set on a class or an instance; None lifts it.

    #: Seconds that a connection may stay open without a request.
    idle_timeout = 75

    #: The same after :meth:`close` or :meth:`stop`, when a connection may be waited for no longer.
    idle_grace = 0.5

    #: Seconds for a whole request head, from its first byte.
    head_timeout = 60

    #: Seconds that a request's body, or the client's taking of the answer, may stand still.
    io_timeout = 300

    #: Seconds that a client may go on sending what nobody reads, after its answer. Then, or if it
    #: sends next to nothing, the connection is closed.
    linger_timeout = 30

    #: Bytes of a request line; more is answered by 414. None: ``gevent.pywsgi.MAX_REQUEST_LINE``.
    max_line = None

    #: Bytes of a request head; more is answered by 431.
    max_head = 65536

    #: Fields of a head; more is answered by 431.
    max_headers = 100

    #: Bytes of a request body; more is answered by 413.
    max_body = None

    #: How HTTP is read: ``'strict'`` by RFC 9112; ``'tolerant'`` with what harms nobody but is
    #: wrong (folded lines, a missing Host, odd chunk extensions); ``'compatible'`` with what
    #: upstream's own tests ask for beside that (upgrades by one field, control bytes in chunk
    #: extensions); ``'upstream'`` always with both Content-Length and Transfer-Encoding, which lets
    #: requests be smuggled past a proxy in front. None: what ``GEVENT_PYWSGI_HTTP`` says, else
    #: strict with our own handlers, and tolerant with a handler class of the program's own, as that
    #: was written for upstream; compatible if it has an ``ApplicationError`` of its own.
    http = None

    _draining = False

    # The native server, once it was started. See `gevent.pywsgi._native`.
    _native = None

    # That handlers serve.
    _connections = 0

    def __init__(
        self,
        listener,
        application=None,
        backlog=None,
        spawn="default",
        log="default",
        error_log="default",
        handler_class=None,
        environ=None,
        **ssl_args,
    ):
        self._idle_handlers = set()
        self._lingering = set()
        super().__init__(listener, backlog=backlog, spawn=spawn, **ssl_args)
        if application is not None:
            self.application = application
        if handler_class is not None:
            self.handler_class = handler_class
        self.log = _log_file(log, 20, getattr(self, "log", None))
        self.error_log = _log_file(error_log, 40, getattr(self, "error_log", None))
        self.set_environ(environ)
        self.set_max_accept()

    def set_environ(self, environ=None):
        """Set what every environ begins with."""
        if environ is not None:
            self.environ = environ
        given = getattr(self, "environ", None)
        self.environ = self.environ_class(self.base_env)
        self.environ["wsgi.url_scheme"] = "https" if self.ssl_enabled else "http"
        if given is not None:
            self.environ.update(given)
        if self.environ.get("wsgi.errors") is None:
            self.environ["wsgi.errors"] = self.error_log

    def set_max_accept(self):
        """Accept one connection at a time when other processes accept from the same socket."""
        if self.environ.get("wsgi.multiprocess"):
            self.max_accept = 1

    def get_environ(self):
        """A copy of :attr:`environ`, for one request."""
        return self.environ_class(self.environ)

    def init_socket(self):
        super().init_socket()
        self.update_environ()
        try:
            # Accepted sockets inherit it. Answers are written whole: there is nothing to wait for.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            # No TCP.
            pass

    def update_environ(self):
        """Put the server's name and port into :attr:`environ`, once they are known."""
        address = self.address
        if not isinstance(address, tuple):
            self.environ.setdefault("SERVER_NAME", "")
            self.environ.setdefault("SERVER_PORT", "")
            return
        if "SERVER_NAME" not in self.environ:
            try:
                name = socket.getfqdn(address[0])
            except OSError:
                name = str(address[0])
            self.environ["SERVER_NAME"] = name
        self.environ.setdefault("SERVER_PORT", str(address[1]))

    def handle(self, sock, address):
        """Serve one connection. Runs in a greenlet of its own."""
        handler = self.handler_class(sock, address, self)
        handler.handle()

    def start_accepting(self):
        from gevent.pywsgi import _native

        if self._native is not None and self._native.accepting:
            self._native.room()
        elif not (_native.usable(self, __class__) and self._start_natively(_native)):
            super().start_accepting()

    def _start_natively(self, native):
        if self._native is None:
            self._native = native.make(self)
        return native.start(self._native, self, __class__._spawn)

    def reload_certificates(self):
        """Read *certfile* and *keyfile* again, for the connections that come from now on.

        If they cannot be used it raises, and the old ones stay.
        """
        if self._native is None or not self.ssl_enabled:
            raise ValueError("only a started server that does TLS by itself can reload")
        self._native.reload_tls()

    def stop_accepting(self):
        if self._native is not None:
            self._native.stop()
        super().stop_accepting()

    def close(self):
        # Answers from now on say that the connection ends. A connection without a request may send
        # one more, as that may be under way; then it ends as well.
        self._draining = True
        super().close()
        if self._native is not None:
            self._native.drain()
            if self._native.connections:
                spawn_later(self.idle_grace, self._native.close_idle)
        if getattr(self, "_idle_handlers", None):
            spawn_later(self.idle_grace, self._end_idle_connections)
        if getattr(self, "_lingering", None):
            spawn_later(_lingering.HURRY, self._end_lingering)

    def _end_idle_connections(self):
        if self._draining:
            for handler in list(self._idle_handlers):
                handler._stop_waiting()

    def _end_lingering(self):
        if self._draining:
            for sock in list(self._lingering):
                sock.close()

    def drained(self):
        """Whether no connection is left, after :meth:`close`."""
        native = getattr(self, "_native", None)
        lingering = getattr(self, "_lingering", None)
        if self._connections or lingering:
            return False
        return native is None or not native.connections

    def start(self):
        self._draining = False
        super().start()

    # For handlers.

    def _report(self, context, kind, value, tb):
        """Tell of an error of the application, or of the server itself."""
        self.loop.handle_error(context, kind, value, tb)

    def _limits(self):
        """The parser's limits, as its arguments."""
        return {
            "max_line": self.max_line or max_request_line(),
            "max_head": sys.maxsize >> 1 if self.max_head is None else self.max_head,
            "max_headers": 256 if self.max_headers is None else self.max_headers,
            "max_body": self.max_body,
        }

    def _http(self):
        mode = self.http or word_of("GEVENT_PYWSGI_HTTP", *_LENIENCY)
        if not mode:
            ours = self.handler_class.__module__.partition(".")[0] == __package__.partition(".")[0]
            if ours:
                return "strict"
            stock = WSGIHandler.ApplicationError
            own = getattr(self.handler_class, "ApplicationError", stock) is not stock
            return "compatible" if own else "tolerant"
        if mode not in _LENIENCY:
            raise ValueError("http is one of %s, not %r" % (", ".join(_LENIENCY), mode))
        return mode


def _log_file(log, level, inherited):
    """What to write a log to, given what a program passed for it."""
    if log == "default":
        return sys.stderr if inherited is None else inherited
    if log is None:
        return _NoopLog()
    if hasattr(log, "write") or not hasattr(log, "log"):
        return log
    return LoggingLogAdapter(log, level)
