"""``wsgi.input``: a request's body, read from the connection as the application asks for it."""

from io import BytesIO

from gevent._core import BodyDecoder, HTTPError
from gevent.hub import sleep
from gevent.pywsgi._errors import _CONTINUE_RESPONSE, _InvalidClientInput
from gevent.pywsgi._lingering import TURN
from gevent.timeout import Timeout

__all__ = ["Input", "UpgradeInput"]

#: Bytes of framing and body that are looked for at a time. The decoder has tighter limits.
_PIECE = 65536

_EOF_IN_CHUNKS = "unexpected end of file while parsing chunked data"


class Input:
    """A body with a length, or one in chunks, as a file to read.

    It never reads past the end of the body, so that the next request on the connection is left
    alone. :param socket: given when the client waits for ``100 Continue``; that is sent before the
    first read.
    """

    __slots__ = (
        "rfile",
        "content_length",
        "socket",
        "position",
        "chunked_input",
        "_chunked_input_error",
        "send_100_continue_enabled",
        "_decoder",
        "_decoded",
    )

    def __init__(self, rfile, content_length, socket=None, chunked_input=False):
        #: The connection's buffered file; the next request is read from it, too.
        self.rfile = rfile
        #: Bytes of the body, or None if it has none or comes in chunks.
        self.content_length = content_length
        self.socket = socket
        #: Bytes of the body that were read.
        self.position = 0
        self.chunked_input = chunked_input
        self._chunked_input_error = False
        self.send_100_continue_enabled = True
        self._decoder = BodyDecoder(None, True) if chunked_input else None
        # What was decoded and not yet asked for.
        self._decoded = None

    def _set_limits(self, max_body, max_headers, http):
        self._decoder = BodyDecoder(
            None, True, max_body=max_body, max_headers=max_headers, http=http
        )

    def _send_100_continue(self):
        if self.socket is not None:
            sock, self.socket = self.socket, None
            if self.send_100_continue_enabled:
                sock.sendall(_CONTINUE_RESPONSE)

    def _is_unread(self):
        """Whether some of the body was not read, be it that it has not come."""
        if self.chunked_input:
            return not self._decoder.done
        return self.position < (self.content_length or 0)

    def _waits_for_leave(self):
        """Whether the client waits for leave to send the body, of which nothing has come."""
        return self.socket is not None and self._is_unread() and not self._has_come()

    def _has_come(self):
        sock = self.socket
        patience = sock.gettimeout()
        sock.settimeout(0)
        try:
            return bool(self.rfile.peek(1))
        except (OSError, AttributeError):
            # Nothing is there; or it is some object of the program's own.
            return False
        finally:
            sock.settimeout(patience)

    def _discard(self, seconds=None):
        """Read what the application did not, so that the next request is found.

        Fails when there is nothing to be found. False: not all has come in so many seconds.
        """
        if self._chunked_input_error:
            raise _InvalidClientInput("the body was not understood")
        if self._waits_for_leave():
            # The client waits for leave to send the body. Now that it is answered without, it may
            # send that or not, and nobody can tell what its next bytes are.
            raise OSError("the body was not asked for")
        self.socket = None
        if not self._is_unread():
            return True
        seen = 0
        with Timeout(seconds, False):
            while size := len(self.read(_PIECE)):
                seen += size
                if seen >= TURN:
                    # A client may send as fast as it is read.
                    seen = 0
                    sleep(0)
            return True
        return False

    # With a length.

    def _do_read(self, length=None, use_readline=False):
        left = (self.content_length or 0) - self.position
        if length is None or length < 0 or length > left:
            length = left
        if length <= 0:
            return b""
        self._send_100_continue()
        data = (self.rfile.readline if use_readline else self.rfile.read)(length)
        self.position += len(data)
        if len(data) < length and not (use_readline and data.endswith(b"\n")):
            raise OSError(
                "unexpected end of file while reading request at position %s" % self.position
            )
        return data

    # In chunks.

    def _decode_more(self):
        """Decode what arrives next, at least one line of framing. False when the body is over."""
        decoder = self._decoder
        if decoder.done:
            return False
        if self._chunked_input_error:
            raise _InvalidClientInput("the body was not understood")
        self._send_100_continue()
        direct = decoder.direct
        try:
            if direct:
                # In a chunk: read(1) blocks for what is not there yet, read1 takes what is.
                take = getattr(self.rfile, "read1", self.rfile.read)
                raw = take(min(direct, _PIECE))
            else:
                raw = self._framing_bytes()
            if not raw:
                raise OSError(_EOF_IN_CHUNKS)
            body, _ = decoder.feed(raw)
        except HTTPError as ex:
            self._chunked_input_error = True
            raise _InvalidClientInput(ex.reason, status=ex.status)
        except BaseException:
            self._chunked_input_error = True
            raise
        if body:
            self._decoded = BytesIO(body)
        return True

    def _framing_bytes(self):
        # Up to a line of framing, so that nothing after the body is taken; less if less is there,
        # as what is wrong may be wrong before its line ends.
        peek = getattr(self.rfile, "peek", None)
        if peek is None:
            return self.rfile.readline(_PIECE)
        seen = peek(1)
        return self.rfile.read(seen.find(b"\n") + 1 or len(seen))

    def _chunked_read(self, length=None, use_readline=False):
        if length is not None and length < 0:
            length = None
        if length == 0:
            return b""
        found = []
        size = 0
        while True:
            if self._decoded is not None:
                want = -1 if length is None else length - size
                data = (self._decoded.readline if use_readline else self._decoded.read)(want)
                if data:
                    found.append(data)
                    size += len(data)
                    if size == length or (use_readline and data.endswith(b"\n")):
                        break
                self._decoded = None
            if not self._decode_more():
                break
        data = found[0] if len(found) == 1 else b"".join(found)
        self.position += len(data)
        return data

    # The file.

    def read(self, length=None):
        """So many bytes, fewer only at the end; all that is left without a length."""
        if self.chunked_input:
            return self._chunked_read(length)
        return self._do_read(length)

    def readline(self, size=None):
        """A line with its end, or the next *size* bytes of it."""
        if self.chunked_input:
            return self._chunked_read(size, True)
        return self._do_read(size, use_readline=True)

    def readlines(self, hint=None):
        """All lines; no more once they hold *hint* bytes together."""
        lines = []
        size = 0
        for line in self:
            lines.append(line)
            size += len(line)
            if hint is not None and 0 < hint <= size:
                break
        return lines

    def __iter__(self):
        return self

    def next(self):
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    __next__ = next


class UpgradeInput:
    """``wsgi.input`` of a request that asks for another protocol.

    The request has no body, so there is nothing to read. After a 101 what comes is the other
    protocol's, and is read as it comes. ``raw._sock`` is the socket, for programs that do all of
    that by themselves; then the connection carries no further request.
    """

    def __init__(self, handler):
        self._handler = handler
        self._file = handler.rfile
        self._is_taken = False

    def _opened(self):
        """The file, once there is something in it."""
        return self._file if self._handler.connection_upgraded else _NOTHING

    def read(self, *args):
        return self._opened().read(*args)

    def read1(self, *args):
        return self._opened().read1(*args)

    def readline(self, *args):
        return self._opened().readline(*args)

    def readlines(self, *args):
        return self._opened().readlines(*args)

    def __iter__(self):
        return self

    def __next__(self):
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    @property
    def rfile(self):
        self._is_taken = True
        return self._file

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self._file, name)
        self._is_taken = True
        return found


_NOTHING = BytesIO()
