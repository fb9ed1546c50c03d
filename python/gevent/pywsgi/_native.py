"""The native server, as ``WSGIServer`` uses it, and what it calls in Python: its cold half.

``gevent._core.WSGICore`` accepts, reads, calls the application and answers. It stands in for the
handlers as long as nobody can tell: :func:`usable` says whether anything that it would not call was
overridden or replaced. ``GEVENT_PYWSGI_PATH=python`` keeps it from being used.
"""

import errno
import io
import os
import sys
from datetime import datetime

from gevent._config import word_of
from gevent._core import WSGICore, had_no_stack
from gevent.greenlet import Greenlet
from gevent.hub import GreenletExit
from gevent.pool import Pool
from gevent.pywsgi._errors import _InvalidClientInput
from gevent.pywsgi._handler import WSGIHandler
from gevent.pywsgi._logs import _NoopLog
from gevent.pywsgi._reading import Reading
from gevent.pywsgi._writing import Writing
from gevent.socket import SHUT_WR, socketpair
from gevent.socket import socket as GeventSocket

__all__ = ["_NoopLog"]

#: What a handler class may set and still be served natively: all of it is looked up here as well.
_HEEDED = frozenset(("ApplicationError", "ignored_socket_errors", "_print_unexpected_exc"))

_HANDLER_PARTS = (WSGIHandler, Reading, Writing)
_ORIGINAL_PARTS = [dict(vars(part)) for part in _HANDLER_PARTS]

#: What the native server does in place of the server's own methods.
_REPLACED = (
    "handle",
    "get_environ",
    "do_read",
    "do_close",
    "do_handle",
    "_do_read",
    "start_accepting",
    "stop_accepting",
    "wrap_socket_and_handle",
    "_limits",
)


def _is_plain_handler(handler_class):
    if not isinstance(handler_class, type) or not issubclass(handler_class, WSGIHandler):
        return False
    for part, original in zip(_HANDLER_PARTS, _ORIGINAL_PARTS, strict=True):
        if dict(vars(part)) != original:
            # Somebody, perhaps a tracer, has put something of their own there.
            return False
    for cls in handler_class.__mro__:
        if cls is WSGIHandler:
            return True
        if vars(cls).get("only_upgrades") is True:
            # What it overrides makes a difference to upgrades alone, and those are handed over.
            continue
        for name in vars(cls):
            if name in _HEEDED or _is_boilerplate(name):
                continue
            if hasattr(WSGIHandler, name):
                return False
    return False


def _is_boilerplate(name):
    return name.startswith("__") and name not in ("__init__", "__getattribute__")


def usable(server, stock):
    """Whether the native server would do all that *server* would; *stock* is ``WSGIServer``."""
    if word_of("GEVENT_PYWSGI_PATH", "python", "native") == "python":
        return False
    cls = type(server)
    for name in _REPLACED:
        if getattr(cls, name) is not getattr(stock, name) or name in vars(server):
            return False
    return (
        server.environ_class is dict
        and type(server.environ) is dict
        and (not server.ssl_enabled or tls_files(server) is not None)
        # Of WebSocket handlers: it wants to see every request.
        and not getattr(server, "pre_start_hook", None)
        and _is_plain_handler(server.handler_class)
    )


#: Arguments for TLS that change nothing as long as they have these values.
_TLS_DEFAULTS = {
    "server_side": True,
    "do_handshake_on_connect": True,
    "suppress_ragged_eofs": True,
    "cert_reqs": 0,
    "ca_certs": None,
    "ciphers": None,
}


def tls_files(server):
    """The certificate chain and the key for the native server's own TLS (rustls).

    None when the arguments ask for something that only OpenSSL's can do: then each connection has
    a handler in Python. So it is with ``ssl_context``, and with ``GEVENT_PYWSGI_TLS=openssl``.
    """
    if word_of("GEVENT_PYWSGI_TLS", "openssl", "rustls") == "openssl":
        return None
    from gevent.ssl import wrap_socket

    arguments = dict(server.ssl_args or ())
    certfile = arguments.pop("certfile", None)
    keyfile = arguments.pop("keyfile", None) or certfile
    if certfile is None or server.wrap_socket is not wrap_socket:
        return None
    for name, value in arguments.items():
        if name not in _TLS_DEFAULTS or value != _TLS_DEFAULTS[name]:
            return None
    return os.fspath(certfile), os.fspath(keyfile)


def configure(core, server):
    """Hand the server's limits to *core*."""
    limits = server._limits()
    core.configure(
        http=server._http(),
        head_timeout=server.head_timeout,
        idle_timeout=server.idle_timeout,
        io_timeout=server.io_timeout,
        linger_timeout=server.linger_timeout,
        max_accept=server.max_accept,
        **limits,
    )


def make(server):
    """A native server for *server*."""
    core = WSGICore(server)
    configure(core, server)
    return core


_POOL_STEPS = {name: getattr(Pool, name) for name in ("spawn", "start", "add")}


def _is_plain_pool(pool, spawn):
    """Whether *spawn* does nothing but to add a plain greenlet to *pool* and start it."""
    return (
        type(pool) is Pool
        and spawn == pool.spawn
        and pool.greenlet_class is Greenlet
        and all(
            getattr(Pool, name) is step and name not in vars(pool)
            for name, step in _POOL_STEPS.items()
        )
    )


def start(core, server, stock_spawn):
    """Have *core* accept, or return False if it cannot. *stock_spawn* is the ``spawn`` of a server
    that was told nothing else."""
    configure(core, server)
    spawn = server._spawn
    if spawn is None:
        how = "hub"
    elif server.pool is None and spawn == stock_spawn:
        how = "greenlet"
    elif _is_plain_pool(server.pool, spawn):
        how = "member"
    else:
        how = "call"
    if server.ssl_enabled:
        try:
            core.set_tls(*tls_files(server))
        except OSError:
            # An encrypted key, say: OpenSSL may be able to use it, and if not its error is the
            # one that programs know.
            return False
    bounded = "full" in vars(server) or type(server).full is not _never_full
    core.start(server.socket.fileno(), how, bounded)
    return True


def _find_never_full():
    from gevent.baseserver import BaseServer

    return BaseServer.full


_never_full = _find_never_full()


# Called by the native server.


def wait_for_room(server):
    """The server is full: have it told when it is not any more."""
    if server.pool is not None:
        server.pool._semaphore.rawlink(server._start_accepting_if_started)


def invalid_input(status, reason):
    """The error that reads of a body raise when the client sends nonsense."""
    return _InvalidClientInput(reason, status=status)


def log_error(server, address, fd, text):
    """A line for the error log about a connection."""
    server.error_log.write("<connection at fd %s from %s>: %s\n" % (fd, address, text))


def refused(server, address, fd, status, reason, line):
    """A request was refused with *status*; *line* is its request line, empty for a bad body."""
    log_error(server, address, fd, "(from %s) %d: %s: %r" % (address, status, reason, line))
    if line and type(server.log) is not _NoopLog:
        client = address[0] if isinstance(address, tuple) else address
        now = datetime.now().replace(microsecond=0)
        text = '%s - - [%s] "%s" %d - 0.000000\n' % (client or "-", now, line, status)
        server.log.write(text)


def report(server, what, error):
    """*error* came up in the server itself."""
    if server is not None:
        server._report((what, server), type(error), error, error.__traceback__)


def failed(server, address, fd, environ, error):
    """The application, or sending its answer, has failed: the status to answer by, 0 for none."""
    if isinstance(error, _InvalidClientInput):
        log_error(
            server,
            address,
            fd,
            "Invalid request (from %s): %s" % (address, str(error) or type(error).__name__),
        )
        return error.status
    if isinstance(error, OSError):
        ignored = server.handler_class.ignored_socket_errors
        if error.args and error.args[0] in ignored:
            return 0
    if not isinstance(error, GreenletExit):
        context = environ
        if not isinstance(context, server.secure_environ_class):
            context = server.secure_environ_class(context)
        server._report(context, type(error), error, error.__traceback__)
    return 500


def accepted(server, fd, address):
    """A connection came after the server's ``_spawn`` or ``handle`` was replaced: as without us."""
    sock = GeventSocket(fileno=fd)
    try:
        server.do_handle(sock, address)
    except BaseException as error:
        server._report(((address,), server), type(error), error, error.__traceback__)


def accept_failed(server, number):
    """accept(2) has failed. The native server pauses by itself."""
    error = OSError(number, os.strerror(number))
    server._report(server, type(error), error, None)
    if server.is_fatal_error(error):
        server.close()
        sys.stderr.write("ERROR: %s failed with %s\n" % (server, str(error) or repr(error)))


class _Replayed(io.RawIOBase):
    """What was received already, and then what the socket brings."""

    def __init__(self, sock, data):
        self._sock = sock
        self._data = memoryview(data)

    def readable(self):
        return True

    def readinto(self, buffer):
        if self._data:
            size = min(len(buffer), len(self._data))
            buffer[:size] = self._data[:size]
            self._data = self._data[size:]
            return size
        return self._sock.recv_into(buffer)


def take_over(server, fd, address, data, here):
    """Serve a connection that is to speak something else by a handler, from its head on.

    *here* is in the running greenlet. When this raises the descriptor is still the caller's.
    """
    sock = GeventSocket(fileno=fd)
    spawn = server.__dict__.get("_spawn", type(server)._spawn)
    if here or spawn is None:
        try:
            _handle(server, sock, address, data)
        except GreenletExit:
            pass
        except BaseException as error:
            report(server, (address,), error)
        return
    try:
        spawn(_handle, server, sock, address, data)
    except BaseException:
        sock.detach()
        raise


def tunnel(server, tunnel, address, data, here):
    """As :func:`take_over` for a connection under our TLS: the handler gets one end of a pair of
    sockets, and two greenlets carry between the other end and the connection."""
    ours, theirs = socketpair()
    for carry in (_carry_in, _carry_out):
        carrier = Greenlet.spawn(carry, tunnel, ours)
        # Without a stack one does nothing, and the other would carry for nobody.
        carrier.rawlink(lambda g: had_no_stack(g) and _break(tunnel, ours))
    take_over(server, theirs.detach(), address, data, here)


def _break(tunnel, sock):
    tunnel.close()
    sock.close()


def _carry_in(tunnel, sock):
    try:
        while data := tunnel.recv():
            sock.sendall(data)
        sock.shutdown(SHUT_WR)
    except OSError:
        # Either end is gone, which the other greenlet hears of too.
        pass


def _carry_out(tunnel, sock):
    try:
        while data := sock.recv(65536):
            tunnel.send(data)
    except OSError:
        pass
    finally:
        _break(tunnel, sock)


def _handle(server, sock, address, data):
    rfile = io.BufferedReader(_Replayed(sock, data))
    try:
        server.handler_class(sock, address, server, rfile).handle()
    except OSError as ex:
        if ex.errno not in (errno.EPIPE, errno.ECONNRESET):
            raise
    finally:
        sock.close()
