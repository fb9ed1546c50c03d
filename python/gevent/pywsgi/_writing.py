"""The part of a handler that answers: ``start_response``, the fields, the body and its framing."""

import re

from gevent._compat import reraise
from gevent.pywsgi._dates import date_now
from gevent.pywsgi._errors import _ERRORS, status_line

__all__ = ["Writing"]

#: Fields about the connection that are the server's business alone (PEP 3333, RFC 9110 §7.6.1). An
#: application's `Connection: close` is heeded; the others of the kind do no harm.
_FRAMING = ("transfer-encoding",)

_is_token = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch


class Writing:
    """The answering half of :class:`gevent.pywsgi.WSGIHandler`."""

    #: What an application is told by that did what it must not.
    ApplicationError = AssertionError

    #: The version of the answers.
    protocol_version = "HTTP/1.1"

    #: The status of the answer: bytes, and text when the server could not send.
    status = None
    # As the application gave it.
    _orig_status = None
    #: The number in it.
    code = None
    #: Pairs of bytes.
    response_headers = None
    #: What the application returned.
    result = None
    #: Whether the head of the answer is out.
    headers_sent = False
    #: Whether the answer is framed in chunks.
    response_use_chunked = False
    #: Bytes that were sent for this request, head and framing included.
    response_length = 0
    #: What the application gave as Date and Content-Length (the latter as a number).
    provided_date = None
    provided_content_length = None
    #: Whether the answer is 101: from then on the connection speaks something else.
    connection_upgraded = False

    # Bytes of the body that its Content-Length still allows, or None.
    _body_left = None

    def start_response(self, status, headers, exc_info=None):
        """What applications call to begin an answer (PEP 3333). Returns :meth:`write`."""
        if exc_info:
            try:
                if self.headers_sent:
                    # Too late for another answer.
                    reraise(*exc_info)
            finally:
                exc_info = None
        if not isinstance(status, str):
            raise UnicodeError("The status string must be a native string")
        if "\r" in status or "\n" in status:
            raise ValueError("carriage return or newline in status", status)
        if "\0" in status:
            raise ValueError("a null character in status", status)
        code = int(status.split(" ", 1)[0])
        if code < 200 and not (code == 101 and self._may_upgrade()):
            raise self.ApplicationError("%d is no final status" % code)
        encoded_status = status.encode("latin-1")

        response_headers = []
        provided_date = provided_length = connection = None
        for name, value in headers:
            field = _encode_field(name, value)
            response_headers.append(field)
            lower = name.lower()
            if lower == "connection":
                connection = value
            elif lower == "date":
                provided_date = value
            elif lower == "content-length":
                if provided_length is not None and provided_length.strip() != value.strip():
                    raise self.ApplicationError("more than one Content-Length, and they differ")
                provided_length = value
            elif lower in _FRAMING:
                raise self.ApplicationError(
                    "%s is for the server alone to set (a hop-by-hop field)" % name
                )
        if self.request_version == "HTTP/1.0" and connection is None:
            kept = b"close" if self.close_connection else b"keep-alive"
            response_headers.append((b"Connection", kept))
        elif connection is not None and "close" in connection.lower():
            self.close_connection = True
        elif connection is None and self.server._draining:
            self.close_connection = True
            response_headers.append((b"Connection", b"close"))
        if provided_length is not None:
            if code in (204, 304):
                self._check_bodyless_length(code, provided_length)
            provided_length = _decimal(provided_length)
            if code == 204:
                provided_length = None
                response_headers = _without(response_headers, b"content-length")

        # Nothing is changed before all of it was found right.
        self._orig_status = status
        self.status = encoded_status
        self.code = code
        self.response_headers = response_headers
        self.provided_date = provided_date
        self.provided_content_length = provided_length
        self.connection_upgraded = code == 101
        return self.write

    def _may_upgrade(self):
        return self._head is None or self._head.upgrade

    def _check_bodyless_length(self, code, length):
        # That of a 304 is what the 200 would have (RFC 9110 §8.6). Upstream's tests want an error.
        as_upstream = self.server._http() in ("compatible", "upstream")
        if length.strip() == "0" or (code == 304 and not as_upstream):
            return
        message = "Invalid Content-Length for %d response: %r (must be absent or zero)"
        raise self.ApplicationError((message % (code, length)).encode("latin-1"))

    def _must_say_close(self):
        """Whether the connection cannot go on, for a reason that the client does not know."""
        if self.connection_upgraded or self._head is None:
            return False
        asked, unread = self._upgrade_input, self.wsgi_input
        waits = False
        if unread is not None and unread.socket is not None:
            waits = unread._waits_for_leave()
            # Nothing is said in the middle of an answer.
            unread.socket = None
        return waits or self.command == "CONNECT" or (asked is not None and asked._is_taken)

    def finalize_headers(self):
        """Add the fields that the application left to the server."""
        if self.provided_date is None:
            self.response_headers.append((b"Date", date_now()))
        if self._must_say_close():
            self.close_connection = True
            if self.command == "CONNECT" and 200 <= self.code < 300:
                # What follows is a tunnel, and has no length (RFC 9110 §9.3.6).
                self.response_headers = _without(self.response_headers, b"content-length")
                return
            if not any(name.lower() == b"connection" for name, _ in self.response_headers):
                self.response_headers.append((b"Connection", b"close"))
        if self.code in (204, 304) or self.connection_upgraded:
            if self.connection_upgraded:
                self.close_connection = True
            return
        if self.provided_content_length is not None:
            if self.provided_content_length is not False:
                self._body_left = self.provided_content_length
            return
        if hasattr(self.result, "__len__"):
            length = sum(len(chunk) for chunk in self.result)
            self._body_left = length
            self.response_headers.append((b"Content-Length", b"%d" % length))
        elif self.request_version != "HTTP/1.0":
            self.response_use_chunked = True
            self.response_headers.append((b"Transfer-Encoding", b"chunked"))
        else:
            # Nothing but the end of the connection says where the body ends.
            self._close_after_unframed_body()

    def _close_after_unframed_body(self):
        self.close_connection = True
        fields = self.response_headers
        for index, (name, value) in enumerate(fields):
            if name == b"Connection" and value == b"keep-alive":
                fields[index] = (name, b"close")

    def write(self, data):
        """Send a piece of the body, after the head if that is not out. What start_response gave."""
        if self.code in (204, 304) and data:
            raise self.ApplicationError("The %s response must have no body" % self.code)
        if self.headers_sent:
            self._write(data)
            return
        if not self.status:
            raise self.ApplicationError("The application did not call start_response()")
        self._write_with_headers(data)

    def _write_with_headers(self, data):
        if data and self.command != "HEAD":
            # What is no bytes is found before the head is out.
            memoryview(data)
        self.finalize_headers()
        head = bytearray(b"HTTP/1.1 ")
        head += self.status
        head += b"\r\n"
        for name, value in self.response_headers:
            head += b"%b: %b\r\n" % (name, value)
        head += b"\r\n"
        self.headers_sent = True
        self._write(data, head)

    def _write(self, data, head=None):
        # `head` goes out with the first piece, in one packet.
        excess = 0
        if not data or self.command == "HEAD":
            # Also text, as long as there is none: WebSocket handlers flush the head by write('').
            data = b""
        else:
            size = memoryview(data).nbytes
            if self._body_left is not None:
                excess = max(0, size - self._body_left)
                if excess:
                    data = memoryview(data).cast("B")[: self._body_left]
                self._body_left -= size - excess
            if self.response_use_chunked:
                head = head if head is not None else bytearray()
                head += b"%x\r\n" % size
                head += data
                data = b"\r\n"
        if head is not None:
            if len(data) < 65536:
                head += data
                data = b""
            self._sendall(head)
        if data:
            self._sendall(data)
        if excess:
            self.close_connection = True
            raise self.ApplicationError(
                "The body is %d bytes longer than its Content-Length" % excess
            )

    def _sendall(self, data):
        try:
            self.socket.sendall(data)
        except OSError as ex:
            self.status = "socket error: %s" % ex
            if self.code and self.code > 0:
                self.code = -self.code
            raise
        self.response_length += len(data)

    def process_result(self):
        """Send what the application returned, to the end of it."""
        for data in self.result:
            if data:
                self.write(data)
        if self.status and not self.headers_sent:
            # All of it was empty.
            self.write(b"")
        if self.response_use_chunked and self.command != "HEAD":
            self._sendall(b"0\r\n\r\n")
        if self._body_left and self.command != "HEAD":
            # The client waits for bytes that will not come; the end of the connection tells it.
            self.close_connection = True
            self.log_error("The body is %d bytes shorter than its Content-Length", self._body_left)

    def _send_error_response_if_possible(self, error_code):
        if self.response_length or self.headers_sent:
            # Something was sent, or a part of it: only the end of the connection can say that
            # it went wrong.
            self.close_connection = True
            return
        status, headers, body = _ERRORS.get(error_code) or _ERRORS[400]
        if error_code not in _ERRORS:
            status = status_line(error_code)
        try:
            # An answer that failed before its head was out is forgotten.
            self.response_use_chunked = False
            self.result = self._body_left = None
            self.start_response(status, headers[:])
            self.write(body)
        except OSError:
            self.close_connection = True


def _encode_field(name, value):
    if not isinstance(name, str):
        raise UnicodeError("The header must be a native string", name, value)
    if not isinstance(value, str):
        raise UnicodeError("The value must be a native string", name, value)
    try:
        encoded_name = name.encode("latin-1")
        encoded_value = value.encode("latin-1")
    except UnicodeEncodeError:
        # Without the value: these are logged, and a value may be a secret.
        raise UnicodeError("Non-latin1 header", repr(name)) from None
    if "\r" in name or "\n" in name:
        raise ValueError("carriage return or newline in header name", name)
    if not _is_token(name):
        raise ValueError("a header name is no token", name)
    if "\r" in value or "\n" in value:
        raise ValueError("carriage return or newline in header value", value)
    if "\0" in value:
        raise ValueError("a null character in header value", value)
    return encoded_name, encoded_value


def _without(fields, name):
    return [field for field in fields if field[0].lower() != name]


def _decimal(text):
    text = text.strip()
    if not text.isascii() or not text.isdigit():
        raise ValueError("Content-Length is no number: %r" % text)
    return int(text)
