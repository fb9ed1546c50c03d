"""TCP, TLS and UDP servers."""

import sys

from _socket import AF_INET, SO_REUSEADDR, SOCK_DGRAM, SOL_SOCKET

from gevent._bind import bind
from gevent.baseserver import BaseServer
from gevent.socket import socket as GeventSocket

__all__ = ["DatagramServer", "StreamServer"]

# On Windows the option lets another program steal the port.
DEFAULT_REUSE_ADDR = None if sys.platform == "win32" else 1


class StreamServer(BaseServer):
    """Accepts TCP connections and runs ``handle(socket, address)`` for each.

    An error of a handler is the handler's own affair; one of accept, or of starting the handler,
    makes the server pause (see :attr:`min_delay`).

    Any further keyword argument turns on TLS: with ``ssl_context`` among them they are arguments
    of that context's ``wrap_socket``, else of :func:`gevent.ssl.wrap_socket`. The context should
    come from :mod:`gevent.ssl`, or from a patched :mod:`ssl`; others block.
    """

    #: Connections that the kernel keeps for us, if the constructor is not told.
    backlog = 128

    reuse_addr = DEFAULT_REUSE_ADDR

    def __init__(self, listener, handle=None, backlog=None, spawn="default", **ssl_args):
        super().__init__(listener, handle=handle, spawn=spawn)
        try:
            self.ssl_args = None
            if ssl_args:
                ssl_args.setdefault("server_side", True)
                if "ssl_context" in ssl_args:
                    self.wrap_socket = ssl_args.pop("ssl_context").wrap_socket
                else:
                    from gevent.ssl import wrap_socket

                    self.wrap_socket = wrap_socket
                self.ssl_args = ssl_args
            if backlog is not None:
                if hasattr(self, "socket"):
                    raise TypeError("backlog must be None when a socket instance is passed")
                self.backlog = backlog
        except BaseException:
            self.close()
            raise

    @property
    def ssl_enabled(self):
        return self.ssl_args is not None

    def init_socket(self):
        if not hasattr(self, "socket"):
            self.socket = self.get_listener(self.address, self.backlog, self.family)
            self.address = self.socket.getsockname()
        self._handle = self.wrap_socket_and_handle if self.ssl_args else self.handle
        # From here on the plain socket: the server waits by itself before it accepts. Whoever made
        # the other one has to see that it is closed.
        self._listener = self.socket
        while hasattr(self.socket, "_sock"):
            self.socket = self.socket._sock

    @classmethod
    def get_listener(cls, address, backlog=None, family=None):
        return _tcp_listener(
            address,
            backlog=cls.backlog if backlog is None else backlog,
            reuse_addr=cls.reuse_addr,
            family=family,
        )

    def do_read(self):
        listener = self.socket
        try:
            fd, address = listener._accept()
        except BlockingIOError:
            if listener.timeout:
                raise
            return None
        return GeventSocket(listener.family, listener.type, listener.proto, fileno=fd), address

    def do_close(self, sock, *_args):
        sock.close()

    def wrap_socket_and_handle(self, client_socket, address):
        """Do the TLS handshake, then handle. This is what is spawned in TLS mode."""
        with self.wrap_socket(client_socket, **self.ssl_args) as ssl_socket:
            return self.handle(ssl_socket, address)


class DatagramServer(BaseServer):
    """Runs ``handle(data, address)`` for each UDP datagram that arrives."""

    reuse_addr = DEFAULT_REUSE_ADDR

    def __init__(self, *args, **kwargs):
        from gevent.lock import Semaphore

        #: The plain socket, to receive with.
        self._socket = None
        super().__init__(*args, **kwargs)
        self._writelock = Semaphore()

    def init_socket(self):
        if not hasattr(self, "socket"):
            self.socket = self.get_listener(self.address, self.family)
            self.address = self.socket.getsockname()
        self._socket = getattr(self.socket, "_sock", self.socket)

    @classmethod
    def get_listener(cls, address, family=None):
        return _udp_socket(address, reuse_addr=cls.reuse_addr, family=family)

    def do_read(self):
        try:
            return self._socket.recvfrom(8192)
        except BlockingIOError:
            return None

    def sendto(self, *args):
        """Send a datagram; callers take turns."""
        with self._writelock:
            self.socket.sendto(*args)


def _bind(sock, address, reuse_addr):
    try:
        if reuse_addr is not None:
            sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, reuse_addr)
        bind(sock, address)
    except BaseException as ex:
        sock.close()
        text = getattr(ex, "strerror", None)
        if text is not None:
            ex.strerror = "%s: %r" % (text, address)
        raise


def _tcp_listener(address, backlog=50, reuse_addr=None, family=AF_INET):
    """A socket that listens on *address* and never blocks. Errors of ``bind`` name the address."""
    sock = GeventSocket(family=family)
    _bind(sock, address, reuse_addr)
    sock.listen(backlog)
    sock.setblocking(0)
    return sock


def _udp_socket(address, backlog=50, reuse_addr=None, family=AF_INET):
    """A UDP socket bound to *address*; *backlog* is taken for the sake of symmetry."""
    sock = GeventSocket(family=family, type=SOCK_DGRAM)
    _bind(sock, address, reuse_addr)
    return sock
