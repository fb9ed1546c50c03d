"""How a request ends that is not served: the answers, and the exceptions inside the server.

The answers to bad requests are bytes that are sent as they are. What the native parser refuses
comes as its own error with a status and a reason (:class:`gevent._core.HTTPError`).
"""

from http.client import responses

from gevent._core import HTTPError

_INTERNAL_ERROR_STATUS = "500 Internal Server Error"
_INTERNAL_ERROR_BODY = b"Internal Server Error"
_INTERNAL_ERROR_HEADERS = (
    ("Content-Type", "text/plain"),
    ("Connection", "close"),
    ("Content-Length", str(len(_INTERNAL_ERROR_BODY))),
)

_BAD_REQUEST_STATUS = "400 Bad Request"
_BAD_REQUEST_BODY = ""
_BAD_REQUEST_HEADERS = (
    ("Content-Type", "text/plain"),
    ("Connection", "close"),
    ("Content-Length", "0"),
)

#: What an application that failed is answered by: status, fields, body.
_ERRORS = {
    500: (_INTERNAL_ERROR_STATUS, _INTERNAL_ERROR_HEADERS, _INTERNAL_ERROR_BODY),
    400: (_BAD_REQUEST_STATUS, _BAD_REQUEST_HEADERS, _BAD_REQUEST_BODY),
}

#: 414 as upstream has always called it.
_TOO_LONG_STATUS = "414 Request URI Too Long"


def plain_answer(status):
    """The bytes that refuse a request, given ``'400 Bad Request'`` or the like."""
    head = "HTTP/1.1 %s\r\nConnection: close\r\nContent-length: 0\r\n\r\n" % status
    return head.encode("latin-1")


_BAD_REQUEST_RESPONSE = plain_answer(_BAD_REQUEST_STATUS)
_REQUEST_TOO_LONG_RESPONSE = plain_answer(_TOO_LONG_STATUS)
_CONTINUE_RESPONSE = b"HTTP/1.1 100 Continue\r\n\r\n"


def status_line(code):
    """Code and phrase: ``'431 Request Header Fields Too Large'``."""
    if code == 414:
        return _TOO_LONG_STATUS
    return "%d %s" % (code, responses.get(code, "Error"))


class _InvalidClientInput(OSError):
    """The client sent a body that makes no sense. Answered by :attr:`status`."""

    status = 400

    def __init__(self, *args, status=400):
        super().__init__(*args)
        self.status = status


class _InvalidClientRequest(ValueError):
    """The client sent a head that makes no sense. Answered by :attr:`status`."""

    status = 400

    def __init__(self, message, status=400):
        super().__init__(message)
        self.formatted_message = message
        self.status = status


__all__ = ["HTTPError", "plain_answer", "status_line"]
