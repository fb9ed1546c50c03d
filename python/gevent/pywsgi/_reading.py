"""The part of a handler that reads: the head of a request, and the environ made of it.

What a head means is decided by the native parser; here is what only a handler that can be
subclassed needs: the request line read on its own, the fields as an object, hooks in between.
"""

import sys
from functools import partial
from urllib.parse import unquote

from gevent._core import FileWrapper, HTTPError, parse_head
from gevent.pywsgi._errors import (
    _InvalidClientRequest,
    plain_answer,
    status_line,
)
from gevent.pywsgi._headers import from_pairs, headers_factory
from gevent.pywsgi._input import Input, UpgradeInput
from gevent.timeout import Timeout

__all__ = ["Reading", "max_request_line"]

MAX_REQUEST_LINE = 8192

unquote_latin1 = partial(unquote, encoding="latin-1")


def max_request_line():
    """The limit, which programs set as ``gevent.pywsgi.MAX_REQUEST_LINE``."""
    package = sys.modules.get("gevent.pywsgi")
    return getattr(package, "MAX_REQUEST_LINE", MAX_REQUEST_LINE)


class Reading:
    """The reading half of :class:`gevent.pywsgi.WSGIHandler`."""

    #: ``GET``
    command = None
    #: The target as it was sent, with its query.
    path = None
    #: The request line without its end.
    requestline = None
    #: ``HTTP/1.1``
    request_version = None
    #: The fields; a new object each time.
    headers = from_pairs([])
    #: Bytes of the body, or None.
    content_length = 0
    #: The environ of the current request.
    environ = None
    #: What ``environ['wsgi.input']`` is, unless the connection is to be upgraded.
    wsgi_input = None
    #: Whether no further request is read from the connection.
    close_connection = False

    # What the native parser said of the current request.
    _head = None
    # Set while the current request asks for another protocol.
    _upgrade_input = None

    def MessageClass(self, *args):
        """What makes :attr:`headers` of a file. A subclass may bring another."""
        return headers_factory(*args)

    def read_requestline(self):
        """The request line with its end, as text; empty at the end of the connection."""
        return self.rfile.readline(self.server._limits()["max_line"]).decode("latin-1")

    def _check_http_version(self):
        return self.request_version in ("HTTP/1.0", "HTTP/1.1")

    def read_request(self, raw_requestline):
        """Read the rest of the head and note what it says.

        True, or something false when the request is to be answered by 400.
        """
        limits = self.server._limits()
        line = raw_requestline.encode("latin-1")
        self.requestline = raw_requestline.rstrip("\r\n")
        try:
            # The line by itself first: what is wrong already is said now, as more may never come.
            parse_head(line + b"\r\n", http="upstream", **limits)
            block = self._read_block(limits["max_head"] - len(line))
            head = parse_head(line + block, http=self.server._http(), **limits)
        except HTTPError as ex:
            message = "(from %s) %s: %r" % (self.client_address, ex.reason, raw_requestline)
            raise _InvalidClientRequest(message, status=ex.status)
        self._head = head
        self.command = head.method
        self.path = head.target
        self.request_version = "HTTP/%d.%d" % head.version
        if type(self).MessageClass is __class__.MessageClass:
            self.headers = from_pairs(list(head.headers))
        else:
            from io import BytesIO

            self.headers = self.MessageClass(BytesIO(block), 0)
        self.content_length = None if head.chunked else head.content_length
        self.close_connection = not head.keep_alive or self.server._draining
        return True

    def _read_block(self, limit):
        """The lines up to the blank one and with it, as bytes."""
        lines = []
        readline = self.rfile.readline
        while True:
            line = readline(limit + 1)
            if not line.endswith(b"\n"):
                if len(line) <= limit:
                    raise EOFError("the connection ended in a head")
                limit = -1
            else:
                lines.append(line)
                limit -= len(line)
                if line in (b"\r\n", b"\n"):
                    return b"".join(lines)
            if limit < 0:
                raise _InvalidClientRequest(
                    "(from %s) the head is too long" % (self.client_address,), status=431
                )

    def _connection_upgrade_requested(self):
        return self._head.upgrade

    def _is_taken(self):
        """Whether the connection is not HTTP's any more, or may not be."""
        if self.connection_upgraded:
            return True
        asked = self._upgrade_input
        # An application that has sent no answer by us may have sent one by itself.
        return asked is not None and (asked._is_taken or not self.headers_sent)

    def _headers(self):
        """Names for the environ and values, field by field. Names with ``_`` are left out: they
        would pass for others."""
        for name, value in self.headers.items():
            if "_" in name:
                continue
            key = name.replace("-", "_").upper()
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                yield "HTTP_" + key, value

    def get_environ(self):
        """A new environ of the server's and the current request. For subclasses to add to."""
        head = self._head
        env = self.server.get_environ()
        env["REQUEST_METHOD"] = self.command
        # SCRIPT_NAME is the server's (or whoever mounted us).
        env["PATH_INFO"] = unquote_latin1(head.path)
        env["QUERY_STRING"] = head.query
        content_type = self.headers.get("content-type")
        if content_type is not None:
            env["CONTENT_TYPE"] = content_type
        if self.content_length is not None:
            env["CONTENT_LENGTH"] = str(self.content_length)
        env["SERVER_PROTOCOL"] = self.request_version
        if isinstance(self.client_address, tuple):
            env["REMOTE_ADDR"] = str(self.client_address[0])
            env["REMOTE_PORT"] = str(self.client_address[1])
        own = set()
        for key, value in self._headers():
            if key in own:
                env[key] += ("; " if "COOKIE" in key else ",") + value
            else:
                # Not what the server's environ may hold under the name.
                own.add(key)
                env[key] = value
        if head.authority is not None:
            # An absolute target overrides the field (RFC 9112 §3.2.2).
            env["HTTP_HOST"] = head.authority
        self.wsgi_input = Input(
            self.rfile,
            self.content_length,
            socket=self.socket if head.expect_continue else None,
            chunked_input=head.chunked,
        )
        if head.chunked:
            limits = self.server._limits()
            self.wsgi_input._set_limits(
                limits["max_body"], limits["max_headers"], self.server._http()
            )
        if getattr(self.server, "_native", None) is not None:
            # As for the requests that need no handler.
            env.setdefault("wsgi.file_wrapper", FileWrapper)
        self._upgrade_input = None
        if self._connection_upgrade_requested():
            self._upgrade_input = UpgradeInput(self)
            env["wsgi.input"] = self._upgrade_input
            env["wsgi.input_terminated"] = False
        else:
            env["wsgi.input"] = self.wsgi_input
            # The input ends by itself: no need to count bytes against CONTENT_LENGTH.
            env["wsgi.input_terminated"] = True
        return env

    # Waiting.

    def _wait_for_request(self):
        """Wait for the first byte of a request. False when none comes, or not in time."""
        peek = getattr(self.rfile, "peek", None)
        if peek is None:
            return True
        seconds = self.server.idle_timeout
        self._set_idle(True)
        try:
            with Timeout(seconds, False) if seconds is not None else _NoTimeout():
                return bool(peek(1))
            return False
        finally:
            self._set_idle(False)

    def _set_idle(self, idle):
        waiting = self.server._idle_handlers
        if idle:
            waiting.add(self)
        else:
            waiting.discard(self)

    def _stop_waiting(self):
        """Called by a server that drains: no further request, if none has begun to come."""
        import _socket

        try:
            self.socket.shutdown(_socket.SHUT_RD)
        except OSError:
            pass

    def _head_limit(self):
        seconds = self.server.head_timeout
        return Timeout(seconds, _HeadTimeout) if seconds is not None else _NoTimeout()

    @staticmethod
    def _refusal(status):
        """What :meth:`handle_one_request` returns for a request that is refused."""
        text = status_line(status)
        return text, plain_answer(text)


class _HeadTimeout(Exception):
    """The head did not come in time."""


class _NoTimeout:
    def __enter__(self):
        return self

    def __exit__(self, *_args):
        return None
