"""What every server does: keep a listening socket and hand each arrival to a handler.

A subclass says how to take an arrival (:meth:`BaseServer.do_read`) and how to dispose of it
(:meth:`BaseServer.do_close`).
"""

import errno
import sys

import _socket

from gevent._core import had_no_stack
from gevent.event import Event
from gevent.greenlet import Greenlet
from gevent.hub import get_hub, spawn_raw

__all__ = ["BaseServer"]


def _handle_and_close_when_done(handle, close, args_tuple):
    try:
        return handle(*args_tuple)
    finally:
        close(*args_tuple)


class BaseServer:
    """The common part of the servers.

    :param listener: an address to bind, or a socket that is bound (and listens, for TCP).
    :keyword handle: called with what arrived. A subclass may have a ``handle`` method instead.
        When it returns, the connection is closed.
    :keyword spawn: who runs the handler. ``'default'`` starts a :class:`gevent.Greenlet`; a
        :class:`gevent.pool.Pool` or a number (of greenlets at a time) stops accepting while it is
        full; another function is called with the handler and its arguments, e.g.
        :func:`gevent.spawn_raw`; ``None`` calls the handler in the hub, where it must not block.

    A server is a context manager that stops itself.
    """

    #: Seconds to pause after an error of accept; doubled by each further error, up to
    #: :attr:`max_delay`, and back to this when accept succeeds.
    min_delay = 0.01

    #: The longest pause, in seconds.
    max_delay = 1

    #: How many arrivals to take in one go. High favours new connections, low the existing ones
    #: (and the fair share of other processes that accept from the same socket).
    max_accept = 100

    _spawn = Greenlet.spawn

    #: Seconds that :meth:`stop` gives the handlers in the pool.
    stop_timeout = 1

    #: Errors of accept after which there is no point in trying again.
    fatal_errors = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)

    def __init__(self, listener, handle=None, spawn="default"):
        self._stop_event = Event()
        self._stop_event.set()
        self._watcher = None
        self._timer = None
        self._handle = None
        self.pool = None
        try:
            self.set_listener(listener)
            self.set_spawn(spawn)
            self.set_handle(handle)
            self.delay = self.min_delay
            self.loop = get_hub().loop
            if self.max_accept < 1:
                raise ValueError("max_accept must be positive int: %r" % (self.max_accept,))
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_args):
        self.stop()

    def set_listener(self, listener):
        if not hasattr(listener, "accept"):
            self.family, self.address = parse_address(listener)
            return
        if hasattr(listener, "do_handshake"):
            raise TypeError("Expected a regular socket, not SSLSocket: %r" % (listener,))
        self.family = listener.family
        self.address = listener.getsockname()
        # Whether there is a ``socket`` attribute says whether the server is open.
        self.socket = listener

    def set_spawn(self, spawn):
        if isinstance(spawn, int):
            from gevent.pool import Pool

            spawn = Pool(spawn)
        self.pool = None
        if hasattr(spawn, "spawn"):
            self.pool = spawn
            self._spawn = spawn.spawn
        elif spawn == "default":
            self._spawn = self._spawn
        elif spawn == "raw":
            self._spawn = spawn_raw
        else:
            self._spawn = spawn
        if hasattr(self.pool, "full"):
            self.full = self.pool.full
        if self.pool is not None:
            self.pool._semaphore.rawlink(self._start_accepting_if_started)

    def set_handle(self, handle):
        if handle is not None:
            self.handle = handle
        if not hasattr(self, "handle"):
            raise TypeError("'handle' must be provided")
        self._handle = self.handle

    def _start_accepting_if_started(self, _event=None):
        if self.started:
            self.start_accepting()

    def start_accepting(self):
        if self._watcher is None:
            self._watcher = self.loop.io(self.socket.fileno(), 1)
            self._watcher.start(self._do_read)

    def stop_accepting(self):
        watchers = (self._watcher, self._timer)
        self._watcher = self._timer = None
        for watcher in watchers:
            if watcher is not None:
                watcher.stop()
                watcher.close()

    def _pause(self):
        """Stop accepting for a while."""
        if self.delay < 0:
            return
        self.stop_accepting()
        self._timer = self.loop.timer(self.delay)
        self._timer.start(self._start_accepting_if_started)
        self.delay = min(self.max_delay, self.delay * 2)

    def do_handle(self, *args):
        spawn, handle, close = self._spawn, self._handle, self.do_close
        try:
            if spawn is None:
                _handle_and_close_when_done(handle, close, args)
            else:
                spawn(_handle_and_close_when_done, handle, close, args)
        except BaseException:
            close(*args)
            raise

    def do_close(self, *args):
        """Dispose of one arrival, given what :meth:`do_read` returned. Nothing, by default."""

    def do_read(self):
        """Take one arrival: the arguments for the handler, or None if there is none.

        Subclasses have to say how.
        """
        raise NotImplementedError()  # abstract

    def _do_read(self):
        for _ in range(self.max_accept):
            if self.full():
                self.stop_accepting()
                if self.pool is not None:
                    # It calls back when there is room.
                    self.pool._semaphore.rawlink(self._start_accepting_if_started)
                return
            try:
                args = self.do_read()
                self.delay = self.min_delay
            except BaseException as ex:
                self.loop.handle_error(self, *sys.exc_info())
                if self.is_fatal_error(ex):
                    self.close()
                    sys.stderr.write("ERROR: %s failed with %s\n" % (self, str(ex) or repr(ex)))
                else:
                    self._pause()
                return
            if not args:
                return
            try:
                self.do_handle(*args)
            except BaseException:
                self.loop.handle_error((args[1:], self), *sys.exc_info())
                self._pause()
                return

    def full(self):
        """Whether there is no room for another handler. A pool brings its own answer."""
        return False

    def __repr__(self):
        return "<%s at %s %s>" % (type(self).__name__, hex(id(self)), self._formatinfo())

    def __str__(self):
        return "<%s %s>" % (type(self).__name__, self._formatinfo())

    def _formatinfo(self):
        # Errors are printed, not raised: this is for logs.
        parts = []
        if hasattr(self, "socket"):
            try:
                fileno = self.socket.fileno()
            except Exception as ex:
                fileno = str(ex)
            parts.append("fileno=%s" % fileno)
        try:
            address = self.address
            if isinstance(address, tuple) and len(address) == 2:
                address = "%s:%s" % address
            parts.append("address=%s" % (address,))
        except Exception as ex:
            parts.append(str(ex) or "<error>")
        handle = self.__dict__.get("handle")
        if handle is not None:
            try:
                if getattr(handle, "__self__", None) is self:
                    # Its repr has ours in it.
                    text = "<bound method %s.%s of self>" % (
                        self.__class__.__name__,
                        handle.__name__,
                    )
                else:
                    text = repr(handle)
                parts.append("handle=" + text)
            except Exception as ex:
                parts.append(str(ex) or "<error>")
        return " ".join(parts)

    @property
    def server_host(self):
        """The address that the server is bound to, as text."""
        if isinstance(self.address, tuple):
            return self.address[0]
        return None

    @property
    def server_port(self):
        """The port that the server is bound to, as a number."""
        if isinstance(self.address, tuple):
            return self.address[1]
        return None

    def init_socket(self):
        """Make, bind and set listening the socket, if the constructor got an address.

        :meth:`start` calls it before it begins to accept.
        """

    @property
    def started(self):
        return not self._stop_event.is_set()

    def start(self):
        """Begin to accept, with a socket made for the purpose if need be."""
        self.init_socket()
        self._stop_event.clear()
        try:
            self.start_accepting()
        except BaseException:
            self.close()
            raise

    def close(self):
        """Stop accepting and close the listening socket. Handlers go on."""
        self._stop_event.set()
        try:
            self.stop_accepting()
        finally:
            try:
                # By now nobody watches it; this ends what the kernel may have been asked for.
                self.loop.closing_fd(self.socket.fileno())
            except Exception:
                pass
            # They are one if the listener is a plain socket. That is closed once: by a second time
            # its number may be somebody else's.
            listener, sock = getattr(self, "_listener", None), getattr(self, "socket", None)
            for each in (listener,) if listener is sock else (listener, sock):
                try:
                    each.close()
                except Exception:
                    pass
            for name in ("socket", "_listener", "handle", "_handle", "_spawn", "full"):
                self.__dict__.pop(name, None)
            if self.pool is not None:
                # stop() still needs the pool.
                self.pool._semaphore.unlink(self._start_accepting_if_started)

    @property
    def closed(self):
        return not hasattr(self, "socket")

    def stop(self, timeout=None):
        """Close, and wait for the handlers in the pool, if there is one.

        Those that still run after *timeout* seconds (default :attr:`stop_timeout`) are killed.
        Without a pool they are left alone.
        """
        self.close()
        if self.pool:
            self.pool.join(timeout=self.stop_timeout if timeout is None else timeout)
            self.pool.kill(block=True, timeout=1)

    def serve_forever(self, stop_timeout=None):
        """Start, unless that has been done, and wait until somebody stops the server."""
        if not self.started:
            self.start()
        try:
            self._stop_event.wait()
        finally:
            # In its own greenlet, so that whatever ends this one does not cut it short.
            stopping = Greenlet.spawn(self.stop, timeout=stop_timeout)
            stopping.join()
            if had_no_stack(stopping):
                self.stop(timeout=stop_timeout)

    def is_fatal_error(self, ex):
        return isinstance(ex, OSError) and ex.args[0] in self.fatal_errors


def _parse_address(address):
    if isinstance(address, tuple):
        host = address[0]
        family = _socket.AF_INET6 if not host or ":" in host else _socket.AF_INET
        return family, address
    if isinstance(address, int) or (isinstance(address, str) and ":" not in address):
        return _socket.AF_INET6, ("", int(address))
    if not isinstance(address, str):
        raise TypeError("Expected tuple or string, got %s" % type(address))
    host, port = address.rsplit(":", 1)
    family = _socket.AF_INET
    if host.startswith("[") and host.endswith("]"):
        family, host = _socket.AF_INET6, host[1:-1]
    return family, ("" if host == "*" else host, int(port))


def parse_address(address):
    """``(family, (host, port))`` of a tuple, a port, ``'host:port'`` or ``'[v6 host]:port'``.

    An empty host and a bare port mean every address of the machine, IPv6 and IPv4.
    """
    try:
        return _parse_address(address)
    except ValueError as ex:
        raise ValueError("Failed to parse address %r: %s" % (address, ex)) from ex
