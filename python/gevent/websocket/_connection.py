"""``WebSocket``: one connection after its handshake. Messages in and out; control frames by itself.

The bytes are the native codec's business. Here is who may read and write when, and how it ends.
"""

import errno

from gevent._core import WebSocketCodec
from gevent.lock import Semaphore
from gevent.timeout import Timeout
from gevent.websocket._errors import WebSocketError

__all__ = ["Stream", "WebSocket"]

MSG_SOCKET_DEAD = "Socket is dead"
MSG_ALREADY_CLOSED = "Connection is already closed"
MSG_CLOSED = "Connection closed"

_VIOLATION = -1


class Stream:
    """The connection of a handler, as a file: what a :class:`WebSocket` is made with."""

    __slots__ = ("handler", "read", "write")

    def __init__(self, handler):
        self.handler = handler
        self.read = handler.rfile.read
        self.write = handler.socket.sendall


class WebSocket:
    """One connection.

    Several greenlets may send, and several may receive; each message goes to one of them.
    """

    __slots__ = (
        "environ",
        "closed",
        "stream",
        "handler",
        "close_code",
        "close_reason",
        "_codec",
        "_events",
        "_socket",
        "_leftover",
        "_reading",
        "_writing",
        "_peer_is_done",
        "_ping_interval",
        "__weakref__",
    )

    OPCODE_CONTINUATION = 0x00
    OPCODE_TEXT = 0x01
    OPCODE_BINARY = 0x02
    OPCODE_CLOSE = 0x08
    OPCODE_PING = 0x09
    OPCODE_PONG = 0x0A

    def __init__(self, environ, stream, handler, codec=None):
        self.environ = environ
        #: Whether no message can be sent or received any more.
        self.closed = False
        self.stream = stream
        self.handler = handler
        #: What the other side closed with, once it did: a number, or None, and text.
        self.close_code = None
        self.close_reason = ""
        self._codec = WebSocketCodec() if codec is None else codec
        self._events = []
        self._socket = handler.socket
        self._leftover = _buffered(handler)
        self._reading = Semaphore(1)
        self._writing = Semaphore(1)
        self._peer_is_done = False
        self._ping_interval = getattr(handler, "ping_interval", None)
        self._socket.settimeout(self._ping_interval)

    # What the handshake said.

    @property
    def origin(self):
        return self.environ.get("HTTP_ORIGIN")

    @property
    def protocol(self):
        """The subprotocol that was asked for."""
        return self.environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")

    @property
    def version(self):
        return self.environ.get("HTTP_SEC_WEBSOCKET_VERSION")

    @property
    def path(self):
        return self.environ.get("PATH_INFO")

    @property
    def logger(self):
        return self.handler.logger

    # In.

    def receive(self):
        """The next message: text, or bytes for a binary one. None once the connection is closed.

        Calling it after that is an error.
        """
        if self.closed:
            raise WebSocketError(MSG_ALREADY_CLOSED)
        with self._reading:
            while not self.closed:
                for kind, value in self._next_events():
                    if kind in (self.OPCODE_TEXT, self.OPCODE_BINARY):
                        return value
                    self._control(kind, value)
        return None

    read_message = receive

    def _next_events(self):
        """Events one by one, as long as they are there; some are read if there are none."""
        if not self._events:
            data = self._read_some()
            if not data:
                self._lost()
                return
            self._events = self._codec.feed(data)
        while self._events and not self.closed:
            # Out of the list before it is handled: a handler may receive, too.
            yield self._events.pop(0)

    def _read_some(self):
        if self._leftover:
            data, self._leftover = self._leftover, b""
            return data
        asked = False
        while True:
            try:
                return self._socket.recv(16384)
            except TimeoutError:
                # Nothing for a while: is anybody there?
                if asked:
                    return b""
                asked = True
                self._try_to_send(self._codec.encode(self.OPCODE_PING, b""))
                if self.closed:
                    return b""
            except OSError:
                return b""

    def _control(self, kind, value):
        if kind == self.OPCODE_PING:
            self.handle_ping(None, value)
        elif kind == self.OPCODE_PONG:
            self.handle_pong(None, value)
        elif kind == self.OPCODE_CLOSE:
            self._peer_is_done = True
            self.close_code, self.close_reason = value
            self.handle_close(None, value)
        elif kind == _VIOLATION:
            self._peer_is_done = True
            self.close(*value)

    def handle_ping(self, header, payload):
        """Answer a ping."""
        self._try_to_send(self._codec.encode(self.OPCODE_PONG, payload))

    def handle_pong(self, header, payload):
        """Take note of a pong. Nothing, by default."""

    def handle_close(self, header, payload):
        """Answer the other side's close by ours."""
        if not self.closed:
            self._end(self._codec.encode_close(*payload))

    # Out.

    def send(self, message, binary=None):
        """Send text, or bytes; *binary* says which way if the type does not."""
        if binary is None:
            binary = not isinstance(message, str)
        if binary:
            opcode = self.OPCODE_BINARY
            if isinstance(message, str):
                message = message.encode("utf-8")
        else:
            opcode = self.OPCODE_TEXT
            if not isinstance(message, (str, bytes, bytearray, memoryview)):
                message = str(message)
        self.send_frame(message, opcode)

    def send_frame(self, message, opcode):
        """Send a frame with this payload (text or bytes)."""
        if self.closed:
            raise WebSocketError(MSG_ALREADY_CLOSED)
        if message is None:
            message = b""
        frame = self._codec.encode(opcode, message)
        with self._writing:
            if self.closed:
                raise WebSocketError(MSG_ALREADY_CLOSED)
            try:
                self._sendall(frame)
            except OSError as ex:
                raise WebSocketError(MSG_SOCKET_DEAD) from ex

    def ping(self, payload=b""):
        """Ask whether the other side is there; it is to answer by a pong with the same payload."""
        self.send_frame(payload, self.OPCODE_PING)

    def _sendall(self, data):
        # A frame that is out in part is the end of everything: what came next would be taken for
        # the rest of it.
        try:
            timeout = self._socket.timeout
            if timeout is not None:
                # That one is for reading.
                self._socket.settimeout(None)
            try:
                self._socket.sendall(data)
            finally:
                if timeout is not None:
                    self._socket.settimeout(timeout)
        except BaseException:
            self._lost()
            raise

    def _try_to_send(self, frame):
        with self._writing:
            if not self.closed:
                try:
                    self._sendall(frame)
                except OSError:
                    pass

    # The end.

    def close(self, code=1000, message=b""):
        """Say that nothing more will be sent or received, with a code (RFC 6455 §7.4) and a reason.

        Does nothing when the connection is closed.
        """
        if self.closed:
            return
        if not isinstance(message, str):
            message = bytes(message).decode("utf-8", "replace")
        self._end(self._codec.encode_close(code, message))

    def _end(self, frame):
        # Closed at once: a sender that waits for its turn must not send after the close.
        self.closed = True
        with self._writing:
            try:
                self._socket.sendall(frame)
            except OSError:
                self._peer_is_done = True

    def _lost(self):
        """The connection ended without a close."""
        self._peer_is_done = True
        if not self.closed:
            self.closed = True
            if self.close_code is None:
                self.close_code = 1006

    def _finish(self, seconds):
        """After our close: wait for the other side's, so that what we sent gets there."""
        if self._peer_is_done:
            return
        with Timeout(seconds, False):
            self._socket.settimeout(None)
            while True:
                for kind, value in self._events:
                    if kind == self.OPCODE_CLOSE:
                        self.close_code, self.close_reason = value
                    if kind in (self.OPCODE_CLOSE, _VIOLATION):
                        return
                try:
                    data = self._leftover or self._socket.recv(16384)
                except OSError:
                    return
                self._leftover = b""
                if not data:
                    return
                self._events = self._codec.feed(data)


def _buffered(handler):
    """What was read from the connection beyond the handshake."""
    peek = getattr(handler.rfile, "peek", None)
    if peek is None:
        return b""
    sock = handler.socket
    sock.settimeout(0)
    try:
        data = peek(1)
        return handler.rfile.read(len(data)) if data else b""
    except OSError as ex:
        if ex.errno in (errno.EAGAIN, errno.EWOULDBLOCK, None):
            return b""
        raise
    finally:
        sock.settimeout(None)
