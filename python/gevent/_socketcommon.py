"""What every cooperative socket shares, whatever object owns the descriptor.

Here are the lists of names that :mod:`gevent.socket` offers, the name-service functions, and
:class:`SocketMixin`: the methods that only need ``_sock`` (a non-blocking :class:`_socket.socket`),
a pair of watchers and a timeout. The class that users see, and the functions that build it, are in
:mod:`gevent._socket3`.

The methods that move data (``recv``, ``recv_into``, ``send``, ``sendall``) live in the mixin and
nowhere else, so that a native base class placed before it replaces them.
"""

import errno as _errno
import socket as __socket__
import sys
from errno import EAGAIN, EALREADY, EBADF, EINPROGRESS, EINVAL, EISCONN, EWOULDBLOCK
from os import strerror
from socket import (
    AF_INET,
    SO_ERROR,
    SO_SNDBUF,
    SOL_SOCKET,
    AddressFamily,
    SocketKind,
    error,
    gaierror,
    gethostname,
    timeout,
)
from time import monotonic as _monotonic

import _socket

from gevent import _core, _hub_primitives
from gevent._hub_local import get_hub_noargs as get_hub
from gevent._util import copy_globals
from gevent.exceptions import ConcurrentObjectUseError
from gevent.hub import sleep
from gevent.timeout import Timeout

is_windows = sys.platform.startswith("win")
is_macos = sys.platform == "darwin"

_AF_UNIX = getattr(__socket__, "AF_UNIX", None)

#: Functions of :mod:`socket` that may ask a name server.
__dns__ = [
    "getaddrinfo",
    "gethostbyname",
    "gethostbyname_ex",
    "gethostbyaddr",
    "getnameinfo",
    "getfqdn",
]

#: Names of :mod:`socket` that have a cooperative version.
_implements = [
    "create_server",
    "create_connection",
    "socket",
    "SocketType",
    "fromfd",
    "socketpair",
] + __dns__

#: Names that :mod:`socket` does not have.
__extensions__ = [
    "cancel_wait",
    "wait_read",
    "wait_write",
    "wait_readwrite",
]

#: Names of :mod:`socket` that are offered as they are, where the platform has them.
__imports__ = copy_globals(
    __socket__,
    globals(),
    only_names=[
        "error",
        "gaierror",
        "herror",
        "timeout",
        "errorTab",
        "htonl",
        "htons",
        "ntohl",
        "ntohs",
        "inet_aton",
        "inet_ntoa",
        "inet_pton",
        "inet_ntop",
        "gethostname",
        "sethostname",
        "getprotobyname",
        "getservbyname",
        "getservbyport",
        "getdefaulttimeout",
        "setdefaulttimeout",
        "AddressFamily",
        "SocketKind",
        "CMSG_LEN",
        "CMSG_SPACE",
        "dup",
        "if_indextoname",
        "if_nameindex",
        "if_nametoindex",
        "has_dualstack_ipv6",
        "recv_fds",
        "send_fds",
    ],
    ignore_missing_names=True,
)


def _copy_constants():
    for name in __socket__.__all__:
        value = getattr(__socket__, name)
        if isinstance(value, (int, str)):
            globals()[name] = value
            __imports__.append(name)


_copy_constants()
del _copy_constants

_SocketError = error
_realsocket = _socket.socket

ECONNREFUSED = getattr(_errno, "ECONNREFUSED", -1)
EHOSTUNREACH = getattr(_errno, "EHOSTUNREACH", -1)

#: The errors after which ``send`` waits and tries again. macOS says EPROTOTYPE when it should
#: say EPIPE, for a moment, while a connection is being torn down.
GSENDAGAIN = (EWOULDBLOCK, _errno.EPROTOTYPE) if is_macos else (EWOULDBLOCK,)

_hub_primitives.set_default_timeout_error(timeout)

wait = _hub_primitives.wait_on_watcher
wait_read = _hub_primitives.wait_read
wait_write = _hub_primitives.wait_write
wait_readwrite = _hub_primitives.wait_readwrite


class cancel_wait_ex(error):
    """What :func:`cancel_wait` raises in the greenlet that was waiting, by default."""

    def __init__(self):
        super().__init__(EBADF, "File descriptor was closed in another greenlet")


def cancel_wait(watcher, error=cancel_wait_ex):
    """Raise *error* in the greenlet that waits for *watcher*, if one does.

    See :meth:`gevent.hub.Hub.cancel_wait`.
    """
    get_hub().cancel_wait(watcher, error)


def gethostbyname(hostname):
    """``gethostbyname(host) -> address``: an IPv4 address of *host*, as dotted text."""
    return get_hub().resolver.gethostbyname(hostname)


def gethostbyname_ex(hostname):
    """``gethostbyname_ex(host) -> (name, aliaslist, addresslist)`` for IPv4."""
    return get_hub().resolver.gethostbyname_ex(hostname)


def _intenum_converter(value, enum_klass):
    try:
        return enum_klass(value)
    except ValueError:  # a number this Python has no name for
        return value


def getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
    """Translate *host* and *port* into the arguments that reach them.

    Returns a list of ``(family, type, proto, canonname, sockaddr)``, as
    :func:`socket.getaddrinfo` does; only the calling greenlet waits for the answer.
    """
    found = get_hub().resolver.getaddrinfo(host, port, family, type, proto, flags)
    # Resolvers answer in plain numbers.
    return [
        (
            _intenum_converter(af, AddressFamily),
            _intenum_converter(kind, SocketKind),
            protocol,
            canonname,
            sockaddr,
        )
        for af, kind, protocol, canonname, sockaddr in found
    ]


def gethostbyaddr(ip_address):
    """``gethostbyaddr(ip_address) -> (name, aliaslist, addresslist)``."""
    return get_hub().resolver.gethostbyaddr(ip_address)


def getnameinfo(sockaddr, flags):
    """``getnameinfo(sockaddr, flags) -> (host, port)``."""
    return get_hub().resolver.getnameinfo(sockaddr, flags)


def getfqdn(name=""):
    """The fully qualified domain name of *name*, or of this machine.

    That is the first name with a dot in it among what :func:`gethostbyaddr` answers, else the
    host name it answers, else *name* itself. The wildcard addresses ``0.0.0.0`` and ``::`` mean
    this machine.
    """
    name = name.strip()
    if name in ("", "0.0.0.0", "::"):
        name = gethostname()
    try:
        hostname, aliases, _ = gethostbyaddr(name)
    except OSError:
        return name
    for candidate in [hostname, *aliases]:
        if (b"." if isinstance(candidate, bytes) else ".") in candidate:
            return candidate
    return hostname


_RESOLVABLE_FAMILIES = (AF_INET, __socket__.AF_INET6) if __socket__.has_ipv6 else (AF_INET,)


def _is_numeric(family, host):
    try:
        return bool(__socket__.inet_pton(family, host))
    except (OSError, AttributeError):
        return False


def _resolve_addr(sock, address):
    """*address* with its host part as a number, so that ``connect`` cannot block on a lookup.

    A host that is a number already is left alone: a lookup would lose an IPv6 scope.
    """
    if (
        sock.family not in _RESOLVABLE_FAMILIES
        or not isinstance(address, tuple)
        or _is_numeric(sock.family, address[0])
    ):
        return address
    host, port = address[:2]
    # The port stays out of the question, as in C: some resolvers refuse one without a type.
    found = getaddrinfo(host, None, sock.family)[0][-1]
    return (found[0], port) + tuple(found[2:])


timeout_default = object()


def _sendall(socket, data_memory, flags):
    """Send all of *data_memory* through ``socket.send``, within ``socket.timeout`` seconds."""
    size = len(data_memory)
    if not size:
        # TLS cannot write an empty record, and there is nothing to say.
        return
    # Bounded pieces: a TLS layer or a slow copy should not be handed all of a huge buffer at once.
    piece = max(socket.getsockopt(SOL_SOCKET, SO_SNDBUF), 1024 * 1024)
    limit = socket.timeout
    if limit is None:
        sent = 0
        while sent < size:
            sent += socket.send(data_memory[sent : sent + piece], flags)
        return
    deadline = _monotonic() + limit
    # The limit is looked at before each send but the first: even if every send succeeds at once,
    # a peer that reads slowly cannot stretch the call, and a limit of zero still sends once.
    sent = socket.send(data_memory[:piece], flags, timeout=limit)
    while sent < size:
        limit = deadline - _monotonic()
        if limit <= 0:
            raise TimeoutError("timed out")
        sent += socket.send(data_memory[sent : sent + piece], flags, timeout=limit)


def _octets(data):
    """The bytes of any buffer as a flat memoryview, without a copy if its layout allows."""
    view = memoryview(data)
    if view.ndim == 1 and view.itemsize == 1 and view.contiguous:
        return view
    try:
        return view.cast("B")
    except (TypeError, ValueError):  # ctypes' own formats, strides
        return memoryview(view.tobytes())


def _reader(name):
    """A method that calls ``_sock.<name>`` and waits to be readable while that would block."""

    def method(self, *args):
        while True:
            try:
                return getattr(self._sock, name)(*args)
            except BlockingIOError:
                if self.timeout == 0.0:
                    raise
            self._await(1)

    method.__name__ = name
    method.__qualname__ = "SocketMixin." + name
    return method


def _made(sock, slot):
    """The watcher in *slot*; None if none was needed yet. Asks no ``__getattr__`` of a subclass."""
    try:
        return getattr(SocketMixin, slot).__get__(sock)
    except AttributeError:
        return None


def _watcher(slot, events):
    """A property: the watcher of one direction, made when it is first asked for, in *slot*."""

    def get(self):
        watcher = _made(self, slot)
        if watcher is None and self._sock:
            watcher = self.hub.loop.io(self._sock.fileno(), events)
            setattr(self, slot, watcher)
        return watcher

    return property(get, lambda self, watcher: setattr(self, slot, watcher))


#: The slot itself: a subclass may turn ``timeout`` into a property that calls ``settimeout``.
_TIMEOUT = _core.SocketBase.timeout


class SocketMixin(_core.SocketBase):
    """The part of a cooperative socket that is the same for every kind of it.

    No ``__getattr__``: a class that has one is slower to ask for any attribute.
    """

    __slots__ = (
        "__weakref__",
        "_read_watcher",
        "_write_watcher",
        "hub",
    )

    _read_event = _watcher("_read_watcher", 1)
    _write_event = _watcher("_write_watcher", 2)

    def __init__(self):
        self._sock = None
        self.hub = None
        _TIMEOUT.__set__(self, None)

    def _take_watchers(self):
        """Forget both watchers for good; return those that were ever made."""
        made = [_made(self, "_read_watcher"), _made(self, "_write_watcher")]
        self._read_event = self._write_event = None
        return [watcher for watcher in made if watcher is not None]

    def _drop_events_and_close(self, closefd=True, _cancel_wait_ex=cancel_wait_ex):
        # The last argument keeps the descriptor alive until nobody waits for it any more.
        away = self._release_source(closefd)
        then = self._drop_ref_on_close if closefd else id
        if away is None:
            self.hub.cancel_waits_close_and_then(
                self._take_watchers(), _cancel_wait_ex, then, self._sock
            )
        else:
            # Another thread's loop has yet to forget the descriptor.
            away.run_callback_threadsafe(
                self.hub.cancel_waits_close_and_then,
                self._take_watchers(),
                _cancel_wait_ex,
                then,
                self._sock,
            )

    def _drop_ref_on_close(self, sock):
        sock.close()

    @property
    def ref(self):
        """Whether a wait on this socket keeps the loop running."""
        return self._read_event.ref or self._write_event.ref

    @ref.setter
    def ref(self, value):
        self._read_event.ref = value
        self._write_event.ref = value

    def _wait(self, watcher, timeout_exc=None, timeout=timeout_default):
        """Park this greenlet until *watcher* fires, at most ``self.timeout`` seconds.

        :raises ConcurrentObjectUseError: another greenlet waits there, or has closed the socket.
        """
        if watcher is None:
            raise ConcurrentObjectUseError("The socket has already been closed by another greenlet")
        if timeout is timeout_default:
            timeout = self.timeout
        if timeout_exc is None:
            wait(watcher, timeout, hub=self.hub)
        else:
            wait(watcher, timeout, timeout_exc, self.hub)

    def settimeout(self, howlong):
        if howlong is not None:
            try:
                as_float = howlong.__float__
            except AttributeError:
                raise TypeError("a float is required", howlong, type(howlong)) from None
            howlong = as_float()
            if howlong < 0.0:
                raise ValueError("Timeout value out of range")
        _TIMEOUT.__set__(self, howlong)

    def gettimeout(self):
        return _TIMEOUT.__get__(self, type(self))

    def setblocking(self, flag):
        self.timeout = None if flag else 0.0

    def getblocking(self):
        """Whether calls wait at all: false only with a timeout of zero."""
        return self.timeout != 0.0

    def shutdown(self, how):
        # SHUT_RD is 0, SHUT_WR 1 and SHUT_RDWR 2.
        if how != 1:
            self._interrupt_wait(1)
            self.hub.cancel_wait(_made(self, "_read_watcher"), cancel_wait_ex)
        if how != 0:
            self._interrupt_wait(2)
            self.hub.cancel_wait(_made(self, "_write_watcher"), cancel_wait_ex)
        self._sock.shutdown(how)

    @property
    def family(self):
        return _intenum_converter(self._sock.family, AddressFamily)

    @property
    def type(self):
        return _intenum_converter(self._sock.type, SocketKind)

    @property
    def proto(self):
        return self._sock.proto

    def fileno(self):
        return self._sock.fileno()

    def getsockname(self):
        return self._sock.getsockname()

    def getpeername(self):
        return self._sock.getpeername()

    def bind(self, address):
        return self._sock.bind(address)

    def listen(self, *args):
        return self._sock.listen(*args)

    def getsockopt(self, *args):
        return self._sock.getsockopt(*args)

    def setsockopt(self, *args):
        return self._sock.setsockopt(*args)

    if hasattr(_socket.socket, "ioctl"):  # Windows

        def ioctl(self, *args):
            return self._sock.ioctl(*args)

    def connect(self, address):
        """Connect to *address*; an IPv6 scope in its host part is kept.

        :raises OSError: as the standard library, with the timeout's error if that comes first.
        """
        self._internal_connect(address)

    def connect_ex(self, address):
        """Connect to *address* and return zero, or the number of the error.

        A failed name lookup is raised all the same, as in the standard library. An overridden
        :meth:`connect` is not used.
        """
        try:
            return self._internal_connect(address) or 0
        except TimeoutError:
            return EAGAIN
        except gaierror:
            raise
        except OSError as ex:
            if not ex.errno:
                raise
            return ex.errno

    def _internal_connect(self, address):
        if self.timeout == 0.0:
            return self._sock.connect(address)
        address = _resolve_addr(self._sock, address)
        pause = 0.0005
        with Timeout._start_new_or_dummy(self.timeout, TimeoutError("timed out")):
            while True:
                failed = self.getsockopt(SOL_SOCKET, SO_ERROR)
                if failed:
                    raise OSError(failed, strerror(failed))
                result = self._sock.connect_ex(address)
                if result in (0, EISCONN):
                    return None
                if result == EWOULDBLOCK and self.family == _AF_UNIX:
                    # The listener's queue is full, which is nothing that could be waited for.
                    sleep(pause)
                    pause = min(2 * pause, 0.05)
                    continue
                if result in (EWOULDBLOCK, EINPROGRESS, EALREADY) or (
                    result == EINVAL and is_windows
                ):
                    self._await(2)
                    continue
                if (
                    result == EHOSTUNREACH
                    and isinstance(address, tuple)
                    and address[0] == "fe80::1"
                ):
                    # macOS, for the link-local address of its own loopback interface.
                    result = ECONNREFUSED
                raise OSError(result, strerror(result))

    # recv, recv_into, send and sendall are native.
    recvfrom = _reader("recvfrom")
    recvfrom_into = _reader("recvfrom_into")
    if hasattr(_socket.socket, "recvmsg"):
        recvmsg = _reader("recvmsg")
    if hasattr(_socket.socket, "recvmsg_into"):
        recvmsg_into = _reader("recvmsg_into")

    def _send_once_more(self, timeout, send, *args):
        """Wait to be writable, then try *send* again. Zero if somebody else was faster."""
        self._await(2, timeout)
        try:
            return send(*args)
        except BlockingIOError:
            return 0

    def _sendall_by_send(self, data, flags=0):
        # For a subclass that overrides send, as a TLS socket does.
        return _sendall(self, _octets(data), flags)

    def sendto(self, *args):
        try:
            return self._sock.sendto(*args)
        except BlockingIOError:
            if self.timeout == 0.0:
                raise
        return self._send_once_more(self.timeout, self._sock.sendto, *args)

    if hasattr(_socket.socket, "sendmsg"):

        def sendmsg(self, buffers, ancdata=(), flags=0, address=None):
            try:
                return self._sock.sendmsg(buffers, ancdata, flags, address)
            except BlockingIOError:
                if self.timeout == 0.0 or flags & getattr(_socket, "MSG_DONTWAIT", 0):
                    raise
            return self._send_once_more(
                self.timeout, self._sock.sendmsg, buffers, ancdata, flags, address
            )


def _inherit_docstrings():
    """Methods that do what the standard library's do are documented by its words."""
    for name, method in vars(SocketMixin).items():
        original = getattr(__socket__.socket, name, None)
        if not name.startswith("_") and callable(method) and not method.__doc__:
            method.__doc__ = getattr(original, "__doc__", None)


_inherit_docstrings()
del _inherit_docstrings
