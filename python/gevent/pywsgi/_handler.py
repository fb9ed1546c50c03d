"""``WSGIHandler``: one connection, request by request, in methods that subclasses may override.

The order in which they are called is upstream's, since gunicorn's handler and those of WebSocket
packages depend on it: ``handle`` → ``handle_one_request`` → ``read_requestline``,
``read_request``, ``get_environ``, ``handle_one_response`` → ``run_application`` →
``start_response``, ``process_result`` → ``write`` → ``finalize_headers``; then ``log_request``.
"""

import errno
import sys
import time
import traceback
from datetime import datetime

from gevent.hub import GreenletExit
from gevent.pywsgi._errors import (
    _REQUEST_TOO_LONG_RESPONSE,
    _TOO_LONG_STATUS,
    _InvalidClientInput,
    _InvalidClientRequest,
)
from gevent.pywsgi._lingering import limit, linger
from gevent.pywsgi._reading import Reading, _HeadTimeout
from gevent.pywsgi._writing import Writing

__all__ = ["WSGIHandler"]

#: Blank lines before a request line that are overlooked (RFC 9112 §2.2 asks for one at least).
_BLANK_LINES = 2


class WSGIHandler(Reading, Writing):
    """Serves one connection.

    :param sock: the client's socket. :param address: the client's address.
    :param server: a :class:`WSGIServer`. :param rfile: what to read requests from, in place of a
        file of the socket.
    """

    #: What the server's application is; read anew for each request.
    application = None

    #: When the current request began and was answered (POSIX time).
    time_start = 0
    time_finish = 0

    #: Errors that say no more than that the client is gone.
    ignored_socket_errors = (errno.EPIPE, errno.ECONNRESET)

    _print_unexpected_exc = staticmethod(traceback.print_exc)

    # The client may still send, also when nothing of a body is unread.
    _is_refused = False
    # It was listened to for long enough.
    _is_late = False

    def __init__(self, sock, address, server, rfile=None):
        self.socket = sock
        self.client_address = address
        self.server = server
        self.rfile = sock.makefile("rb", -1) if rfile is None else rfile

    def handle(self):
        """Serve request after request, until either side has enough; then close the socket."""
        self.server._connections += 1
        is_answered = False
        try:
            while self.socket is not None:
                self.time_start = time.time()
                self.time_finish = 0
                result = self.handle_one_request()
                if result is None:
                    is_answered = True
                    break
                if result is True:
                    continue
                # A status and bytes: the request was refused.
                self.status, answer = result
                self.code = None
                self.socket.sendall(answer)
                if not self.time_finish:
                    self.time_finish = time.time()
                self.log_request()
                self._is_refused = is_answered = True
                break
        except OSError as ex:
            if ex.errno not in self.ignored_socket_errors and not isinstance(ex, TimeoutError):
                raise
        finally:
            self.server._connections -= 1
            self._close_connection(is_answered)

    def _close_connection(self, is_answered=False):
        sock = self.__dict__.pop("socket", None)
        rfile = self.__dict__.pop("rfile", None)
        wsgi_input = self.__dict__.pop("wsgi_input", None)
        if sock is not None:
            # What the client sends in vain would turn our close into a reset that takes the answer
            # with it.
            if is_answered and self._may_still_send(sock, wsgi_input):
                linger(self.server, sock)
            try:
                sock.close()
            except OSError:
                pass
        if rfile is not None:
            try:
                rfile.close()
            except OSError:
                pass

    def _may_still_send(self, sock, wsgi_input):
        """Whether there is something of the client's that nobody has read, or will be."""
        if self._is_late or self._is_taken():
            return False
        if self._is_refused or (wsgi_input is not None and wsgi_input._is_unread()):
            return True
        try:
            return bool(sock._sock.recv(16384))
        except (OSError, AttributeError):
            # Nothing is there; or it is some object of the program's own.
            return False

    def handle_one_request(self):
        """Read and answer a request.

        True: go on with the next. None: the connection is done. A status and bytes: the request
        is refused, send them and be done.
        """
        if self.rfile.closed:
            return None
        self.requestline = None
        self.response_length = 0
        self.status = self._orig_status = None
        try:
            if not self._wait_for_request():
                return None
            with self._head_limit():
                for _ in range(1 + _BLANK_LINES):
                    line = self.read_requestline()
                    if isinstance(line, bytes):
                        line = line.decode("latin-1")
                    if line != "\r\n":
                        break
                if not line:
                    return None
                self.requestline = line.rstrip("\r\n")
                if len(line) >= self.server._limits()["max_line"]:
                    return _TOO_LONG_STATUS, _REQUEST_TOO_LONG_RESPONSE
                if not self.read_request(line):
                    return self._refusal(400)
        except (OSError, EOFError):
            # The client went away, and nobody waits for an answer.
            return None
        except _HeadTimeout:
            if self.requestline is None:
                self.requestline = ""
            return self._refusal(408)
        except Exception as ex:
            return self._handle_client_error(ex)

        self.environ = self.get_environ()
        self.application = self.server.application
        self._set_idle_limit(self.server.io_timeout)
        self.handle_one_response()
        if self.close_connection or self._is_taken() or self.rfile.closed:
            return None
        self._set_idle_limit(None)
        return True

    def _set_idle_limit(self, seconds):
        # Of each wait for the client while a request is served.
        sock = self.socket
        if sock is not None and seconds != getattr(sock, "timeout", seconds):
            sock.settimeout(seconds)

    def _handle_client_error(self, ex):
        """Log what was wrong with a request; the answer that refuses it."""
        if not isinstance(ex, (ValueError, _InvalidClientInput)):
            self._print_unexpected_exc()
        if isinstance(ex, _InvalidClientRequest):
            # Formatted already, with whatever the client sent in it.
            self.log_error("%s", ex.formatted_message)
        else:
            self.log_error(
                "Invalid request (from %s): %s", self.client_address, str(ex) or type(ex).__name__
            )
        return self._refusal(getattr(ex, "status", 400))

    def handle_one_response(self):
        """Answer the current request and log it."""
        self.time_start = time.time()
        self.status = self._orig_status = None
        self.code = None
        self.headers_sent = False
        self.result = None
        self.response_use_chunked = False
        self.connection_upgraded = False
        self.response_length = 0
        self._body_left = None
        try:
            try:
                self.run_application()
            finally:
                self._discard_input()
        except _InvalidClientInput as ex:
            self._handle_client_error(ex)
            self.close_connection = True
            self._send_error_response_if_possible(ex.status)
        except OSError as ex:
            if ex.args and ex.args[0] in self.ignored_socket_errors:
                self.close_connection = True
            else:
                self.handle_error(*sys.exc_info())
        except:
            self.handle_error(*sys.exc_info())
        finally:
            self.time_finish = time.time()
            self.log_request()

    def _discard_input(self):
        if self.close_connection and self.headers_sent:
            # No further request will be looked for.
            return
        try:
            self._is_late = not self.wsgi_input._discard(limit(self.server))
            self.close_connection |= self._is_late
        except _InvalidClientInput as ex:
            self.close_connection = True
            if str(ex):
                self._handle_client_error(ex)
        except OSError:
            self.close_connection = True

    def run_application(self):
        """Call the application and send what it returns."""
        assert self.result is None
        try:
            self.result = self.application(self.environ, self.start_response)
            self.process_result()
        finally:
            close = getattr(self.result, "close", None)
            try:
                if close is not None:
                    close()
            finally:
                # Its frames hold the environ, and with that the socket.
                self.result = close = None

    def handle_error(self, t, v, tb):
        """Answer by 500, if that is still possible, and log the error through the hub."""
        if not issubclass(t, GreenletExit):
            context = self.environ
            if not isinstance(context, self.server.secure_environ_class):
                context = self.server.secure_environ_class(context)
            self._log_error(t, v, tb, context)
        self.close_connection = True
        self._send_error_response_if_possible(500)

    def _log_error(self, t, v, tb, context=None):
        report = getattr(self.server, "_report", self.server.loop.handle_error)
        report(self.environ if context is None else context, t, v, tb)

    # Logs.

    def log_error(self, msg, *args):
        """Write a line to the server's error log; *msg* is formatted with *args*, if there are."""
        try:
            message = msg % args if args else msg
        except Exception:
            # A bad format must not cost the message.
            message = "%r %r" % (msg, args)
        try:
            message = "%r: %s" % (self.socket, message)
        except Exception:
            pass
        try:
            self.server.error_log.write(message + "\n")
        except Exception:
            self._print_unexpected_exc()

    def log_request(self):
        """Write the current request's line to the server's log."""
        self.server.log.write(self.format_request() + "\n")

    def format_request(self):
        """The line: client, time, request line, status, bytes sent, seconds taken."""
        now = datetime.now().replace(microsecond=0)
        length = self.response_length or "-"
        taken = "%.6f" % (self.time_finish - self.time_start) if self.time_finish else "-"
        client = self.client_address
        if isinstance(client, tuple):
            client = client[0]
        status = self._orig_status or self.status or "000"
        if isinstance(status, bytes):
            status = status.decode("latin-1")
        return '%s - - [%s] "%s" %s %s %s' % (
            client or "-",
            now,
            self.requestline or "",
            status.split(" ", 1)[0],
            length,
            taken,
        )
