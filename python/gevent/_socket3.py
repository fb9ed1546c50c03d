"""The cooperative ``socket`` class and the functions that make sockets.

A socket here does not derive from the standard library's: it holds one, ``_sock``, which owns the
descriptor, is always non-blocking and answers everything that cannot block. Code that wants the
plain socket takes ``_sock``.

Use :mod:`gevent.socket`; this module is where its parts are kept.
"""

import operator
import os
import socket as __socket__
from errno import EBADF
from os import dup
from socket import AF_INET, AF_INET6, SOCK_STREAM, getdefaulttimeout

import _socket

from gevent import _socketcommon
from gevent._hub_local import get_hub_noargs as get_hub
from gevent._hub_local import get_thread_ident
from gevent._util import copy_globals

__implements__ = _socketcommon._implements
__extensions__ = _socketcommon.__extensions__
__imports__ = _socketcommon.__imports__
__dns__ = _socketcommon.__dns__

copy_globals(_socketcommon, globals(), names_to_ignore=__extensions__, dunder_names_to_keep=())

#: The class as the interpreter shipped it: this module is imported before anything is patched.
_plain_socket = __socket__.socket

SocketIO = __socket__.SocketIO

_SOCK_NONBLOCK = getattr(_socket, "SOCK_NONBLOCK", 0)


class _closedsocket:
    """Stands in for ``_sock`` after the end: remembers what it was, refuses to do anything."""

    __slots__ = ("description", "family", "orig_fileno", "proto", "type")

    def __init__(self, family, type, proto, orig_fileno, description):
        self.family = family
        self.type = type
        self.proto = proto
        self.orig_fileno = orig_fileno
        self.description = description

    def __bool__(self):
        return False

    def __repr__(self):
        return "<socket object [closed proxy at 0x%x fd=%s %s]>" % (
            id(self),
            self.orig_fileno,
            self.description,
        )

    def fileno(self):
        return -1

    detach = fileno

    def close(self):
        """Closing twice is allowed."""

    def _refuse(*_args, **_kwargs):
        raise OSError(EBADF, "Bad file descriptor")

    # By name too, for whoever looks them up on the class.
    send = sendto = recv = recv_into = recvfrom = recvfrom_into = getsockname = _refuse
    __getattr__ = _refuse


class _wrefsocket(_socket.socket):
    """The C socket, made weakly referable: ``_ssl`` wants that of its owner."""

    __slots__ = ("__weakref__",)


class socket(_socketcommon.SocketMixin):
    """A socket whose calls let other greenlets run while they wait.

    Arguments, methods and errors are those of :class:`socket.socket`. Two greenlets may not
    wait for the same direction of one socket at a time: the second gets
    :exc:`gevent.exceptions.ConcurrentObjectUseError`. Closing wakes whoever waits, with ``EBADF``.
    """

    #: Makes ``_sock`` from ``(family, type, proto, fileno)``.
    _gevent_sock_class = _wrefsocket

    __slots__ = (
        "_closed",
        "_io_refs",
    )

    def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
        super().__init__()
        self._closed = False
        self._io_refs = 0
        if fileno is None:
            # With a descriptor, -1 means to ask it what it is.
            family = AF_INET if family == -1 else family
            type = SOCK_STREAM if type == -1 else type
            proto = 0 if proto == -1 else proto
        self._sock = self._gevent_sock_class(family, type, proto, fileno)
        # Not by way of self: a subclass may forward these to another object.
        _socket.socket.setblocking(self._sock, False)
        self.timeout = getdefaulttimeout()
        self.hub = get_hub()

    if _SOCK_NONBLOCK:

        @property
        def type(self):
            kind = self._sock.type
            # The flag is ours, unless the user asked for it.
            return kind if self.timeout == 0.0 else kind & ~_SOCK_NONBLOCK

    @property
    def closed(self):
        return self._closed

    def __enter__(self):
        return self

    def __exit__(self, *_args):
        if not self._closed:
            self.close()

    def __repr__(self):
        try:
            text = repr(self._sock)
        except Exception as ex:
            # A descriptor that no longer answers must not make printing fail.
            return "<socket [%r]>" % (ex,)
        opening = "<socket object"
        if not text.startswith(opening):
            return text
        return "<%s.%s%s at 0x%x%s%s" % (
            self.__class__.__module__,
            self.__class__.__name__,
            " [closed]" if getattr(self, "_closed", False) else "",
            id(self),
            self._extra_repr(),
            text[len("<socket") :],
        )

    def _extra_repr(self):
        return ""

    def __getstate__(self):
        raise TypeError("Cannot serialize socket object")

    def dup(self):
        """A new socket on a duplicate of the descriptor, with the same timeout."""
        copy = self.__class__(self.family, self.type, self.proto, fileno=dup(self.fileno()))
        copy.settimeout(self.gettimeout())
        return copy

    def _accept(self):
        # ``hasattr`` of the class must find it.
        return self._sock._accept()

    def accept(self):
        """Wait for a connection; return ``(socket, address)``."""
        while True:
            try:
                fd, address = self._accept()
                break
            except BlockingIOError:
                if self.timeout == 0.0:
                    raise
            self._await(1)
        try:
            accepted = socket(self.family, self.type, self.proto, fileno=fd)
        except BaseException:
            _socket.close(fd)
            raise
        if getdefaulttimeout() is None and self.gettimeout():
            # A listener's timeout is its own; the connection starts without one.
            accepted.setblocking(True)
        return accepted, address

    # Written in Python on top of public methods, and so as right for this class as for theirs.
    makefile = _plain_socket.makefile

    def _decref_socketios(self):
        # The file objects of makefile call this at their end.
        if self._io_refs > 0:
            self._io_refs -= 1
        if self._closed:
            self.close()

    def _drop_ref_on_close(self, sock):
        # Somebody may watch the descriptor without our knowing (select, poll). If so the loop
        # tells them, in its next iteration, and the descriptor has to live until they have heard.
        loop = self.hub.loop
        if loop is None or not loop.closing_fd(sock.fileno()):
            sock.close()
            return
        # A check watcher and not a callback: within a batch of callbacks, a new callback would
        # still run in this iteration.
        def begin():
            check = loop.check()
            check.start(finish, check)

        def finish(check):
            check.stop()
            check.close()
            try:
                loop.forget_fd(sock.fileno())
                sock.close()
            except OSError:
                pass

        if self.hub.thread_ident == get_thread_ident():
            begin()
        else:
            loop.run_callback_threadsafe(begin)

    def _detach_socket(self, reason):
        sock = self._sock
        if not sock:
            return
        family = type = proto = -1
        fileno = None
        try:
            family, type, proto, fileno = sock.family, sock.type, sock.proto, sock.fileno()
        except OSError:
            pass
        self._drop_events_and_close(closefd=reason == "closed")
        self._sock = _closedsocket(family, type, proto, fileno, reason)

    def _real_close(self, _ss=_socket.socket):
        if self._sock:
            self._detach_socket("closed")

    def close(self):
        """Close the socket, once the files that :meth:`makefile` made are closed too."""
        self._closed = True
        if self._io_refs <= 0:
            self._real_close()

    def detach(self):
        """Give the descriptor away: return it, still open, and become unusable.

        Watchers of the descriptor are dropped; a greenlet that waits is woken with ``EBADF``.
        """
        self._closed = True
        sock = self._sock
        self._detach_socket("detached")
        return sock.detach()

    def _sendfile_use_sendfile(self, file, offset=0, count=None):
        # os.sendfile reads the file in the kernel and would hold up every greenlet.
        raise __socket__._GiveupOnSendfile()

    def _sendfile_use_send(self, file, offset=0, count=None):
        self._check_sendfile_params(file, offset, count)
        if self.gettimeout() == 0:
            raise ValueError("non-blocking sockets are not supported")
        if offset:
            file.seek(offset)
        total = 0
        try:
            while count is None or total < count:
                data = file.read(8192 if count is None else min(8192, count - total))
                if not data:
                    break
                view = memoryview(data)
                while view:
                    try:
                        sent = self.send(view)
                    except BlockingIOError:
                        continue
                    total += sent
                    view = view[sent:]
            return total
        finally:
            if total and hasattr(file, "seek"):
                file.seek(offset + total)

    def _check_sendfile_params(self, file, offset, count):
        if "b" not in getattr(file, "mode", "b"):
            raise ValueError("file should be opened in binary mode")
        if not self.type & SOCK_STREAM:
            raise ValueError("only SOCK_STREAM type sockets are supported")
        if count is not None:
            if not isinstance(count, int):
                raise TypeError(f"count must be a positive integer (got {count!r})")
            if count <= 0:
                raise ValueError(f"count must be a positive integer (got {count!r})")

    def sendfile(self, file, offset=0, count=None):
        """Send *file*, opened in binary mode, from *offset*: *count* bytes, or all there is.

        Returns how many bytes were sent, and leaves the file's position behind the last of them.
        For stream sockets that are not in non-blocking mode.
        """
        return self._sendfile_use_send(file, offset, count)

    def get_inheritable(self):
        """Whether child processes inherit the descriptor."""
        if os.name == "nt":
            return os.get_handle_inheritable(self.fileno())
        return os.get_inheritable(self.fileno())

    def set_inheritable(self, inheritable):
        """Choose whether child processes inherit the descriptor."""
        if os.name == "nt":
            os.set_handle_inheritable(self.fileno(), inheritable)
        else:
            os.set_inheritable(self.fileno(), inheritable)


for _name in dir(_socket.socket):
    # What needs no care, such as sendmsg_afalg.
    if not _name.startswith("__") and not hasattr(socket, _name):
        setattr(socket, _name, property(operator.attrgetter("_sock." + _name)))
del _name

SocketType = socket


def fromfd(fd, family, type, proto=0):
    """A socket on a duplicate of the descriptor *fd*; the rest as for :class:`socket`."""
    return socket(family, type, proto, dup(fd))


if hasattr(_socket.socket, "share"):  # Windows

    def fromshare(info):
        """A socket from the bytes that ``share`` of another process's socket returned."""
        return socket(0, 0, 0, info)

    __implements__.append("fromshare")


def _fallback_socketpair(family=AF_INET, type=SOCK_STREAM, proto=0):
    """Two connected sockets by way of a listener on loopback, for systems without the call."""
    hosts = {AF_INET: "127.0.0.1", AF_INET6: "::1"}
    if family not in hosts:
        raise ValueError("Only AF_INET and AF_INET6 socket address families are supported")
    if type != SOCK_STREAM:
        raise ValueError("Only SOCK_STREAM socket type is supported")
    if proto != 0:
        raise ValueError("Only protocol zero is supported")

    made = []
    try:
        with socket(family, type, proto) as listener:
            listener.bind((hosts[family], 0))
            listener.listen()
            client = socket(family, type, proto)
            made.append(client)
            client.setblocking(False)
            try:
                client.connect(listener.getsockname()[:2])
            except (BlockingIOError, InterruptedError):
                pass
            client.setblocking(True)
            server, _ = listener.accept()
            made.append(server)
        # Somebody else on this machine may have been first.
        if (
            server.getsockname() != client.getpeername()
            or client.getsockname() != server.getpeername()
        ):
            raise ConnectionError("Unexpected peer connection")
    except BaseException:
        for sock in made:
            sock.close()
        raise
    return server, client


if hasattr(__socket__, "_fallback_socketpair"):
    __implements__.append("_fallback_socketpair")


if hasattr(_socket, "socketpair"):

    def socketpair(family=None, type=SOCK_STREAM, proto=0):
        """Two sockets connected to each other, of ``AF_UNIX`` where there is such a thing."""
        if family is None:
            family = getattr(__socket__, "AF_UNIX", AF_INET)
        return tuple(
            socket(family, type, proto, end.detach())
            for end in _socket.socketpair(family, type, proto)
        )
else:
    socketpair = _fallback_socketpair


__all__ = [
    name for name in __implements__ + __extensions__ + __imports__ if name != "_fallback_socketpair"
]

#: Names that only some versions or platforms have.
__version_specific__ = (
    "close",
    "TCP_KEEPALIVE",
    "TCP_KEEPCNT",
)


def _copy_version_specific():
    for name in __version_specific__:
        if hasattr(__socket__, name):
            globals()[name] = getattr(__socket__, name)
            if name not in __all__:
                __all__.append(name)


_copy_version_specific()
del _copy_version_specific
