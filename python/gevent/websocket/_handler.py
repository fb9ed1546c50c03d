"""``WebSocketHandler``: the opening handshake (RFC 6455 §4.2), then the application."""

import base64
import binascii
import hashlib
import logging

from gevent._core import WebSocketCodec
from gevent.pywsgi import WSGIHandler
from gevent.websocket._connection import Stream, WebSocket

__all__ = ["Client", "WebSocketHandler"]

_log = logging.getLogger("gevent.websocket")


class Client:
    """Who is connected: an entry of the server's ``clients``."""

    def __init__(self, address, ws):
        self.address = address
        self.ws = ws


class WebSocketHandler(WSGIHandler):
    """Upgrades the connections that ask for it; serves any other request as its base class.

    The application finds the :class:`WebSocket` as ``environ['wsgi.websocket']``. What it returns
    is thrown away. When it is done, the connection is closed.

    A server's ``pre_start_hook`` is called with the handler before anything else; if it returns
    something true, the request is served as it is.
    """

    SUPPORTED_VERSIONS = ("13", "8", "7")
    GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

    #: Said to the native server: any other request may be served by it, without this handler.
    only_upgrades = True

    #: Bytes of a message, unpacked; a bigger one closes the connection with 1009.
    max_message_size = 16 * 1024 * 1024

    #: Whether messages may be compressed when the client offers that (RFC 7692).
    compression = True

    #: Seconds without a sign of life after which a client is pinged, and after which again it is
    #: given up. None: it may be silent for ever. Only noticed while the application receives.
    ping_interval = None

    #: Seconds to wait for the client's close after ours.
    close_timeout = 5

    #: Set to do the handshake alone, without a call of the application.
    prevent_wsgi_call = False

    @property
    def logger(self):
        """The server's logger, if it has one."""
        return getattr(self.server, "logger", None) or _log

    @property
    def active_client(self):
        return self.server.clients[self.client_address]

    def run_application(self):
        hook = getattr(self.server, "pre_start_hook", None)
        if hook and hook(self):
            return super().run_application()
        refusal = self.upgrade_websocket()
        if hasattr(self, "websocket"):
            if self.status and not self.headers_sent:
                self.write(b"")
            self.run_websocket()
        elif self.status:
            self.result = refusal or []
            self.process_result()
        else:
            super().run_application()
        return None

    def run_websocket(self):
        """Call the application with the new connection, and see to its end."""
        if self.prevent_wsgi_call:
            return
        if not hasattr(self.server, "clients"):
            self.server.clients = {}
        websocket = self.websocket
        # Several clients of a Unix socket have the same address: none.
        key = self.client_address or id(websocket)
        self.server.clients[key] = Client(self.client_address, websocket)
        code = 1011
        try:
            # The answer was the handshake: what it calls start_response with is of no interest.
            list(self.application(self.environ, lambda s, h, e=None: []) or ())
            code = 1000
        finally:
            self.server.clients.pop(key, None)
            if not websocket.closed:
                websocket.close(code)
            websocket._finish(self.close_timeout)
            self.environ["wsgi.websocket"] = None
            del self.websocket

    def upgrade_websocket(self):
        """Do the handshake if the request asks for it.

        Afterwards there is ``self.websocket``; or ``self.status``, and the body of a refusal was
        returned; or neither, for a request of another kind.
        """
        environ = self.environ
        if environ.get("REQUEST_METHOD") != "GET":
            return None
        if not _has(environ.get("HTTP_UPGRADE", ""), "websocket"):
            return None
        if not _has(environ.get("HTTP_CONNECTION", ""), "upgrade"):
            self.logger.warning("A WebSocket request without `Connection: Upgrade`")
            return None
        if self.request_version != "HTTP/1.1":
            return self._refuse("400 Bad Request", "WebSockets need HTTP/1.1")
        if not environ.get("HTTP_SEC_WEBSOCKET_VERSION"):
            return self._refuse("426 Upgrade Required", "No WebSocket version", versions=True)
        return self.upgrade_connection()

    def upgrade_connection(self):
        """The second half of the handshake: keys, extensions, the answer."""
        environ = self.environ
        version = environ["HTTP_SEC_WEBSOCKET_VERSION"]
        if version not in self.SUPPORTED_VERSIONS:
            return self._refuse(
                "426 Upgrade Required", "Unsupported WebSocket version", versions=True
            )
        key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "").strip()
        try:
            key_length = len(base64.b64decode(key, validate=True))
        except (binascii.Error, ValueError):
            key_length = 0
        if key_length != 16:
            return self._refuse("400 Bad Request", "A bad Sec-WebSocket-Key")

        protocol = None
        if hasattr(self.application, "app_protocol"):
            allowed = self.application.app_protocol(environ["PATH_INFO"])
            if allowed and _has(environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", ""), allowed.lower()):
                protocol = allowed
        offered = environ.get("HTTP_SEC_WEBSOCKET_EXTENSIONS", "") if self.compression else ""
        codec = WebSocketCodec(self.max_message_size, offered)

        self.websocket = WebSocket(environ, Stream(self), self, codec)
        environ["wsgi.websocket_version"] = version
        environ["wsgi.websocket"] = self.websocket
        digest = hashlib.sha1((key + self.GUID).encode("latin-1")).digest()
        fields = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", base64.b64encode(digest).decode("latin-1")),
        ]
        if protocol:
            fields.append(("Sec-WebSocket-Protocol", protocol))
        if codec.extensions:
            fields.append(("Sec-WebSocket-Extensions", codec.extensions))
        self.start_response("101 Switching Protocols", fields)
        return None

    def _refuse(self, status, reason, versions=False):
        self.logger.warning("A WebSocket request was refused: %s", reason)
        fields = [("Content-Type", "text/plain"), ("Connection", "close")]
        if versions:
            fields.append(("Sec-WebSocket-Version", ", ".join(self.SUPPORTED_VERSIONS)))
        self.start_response(status, fields)
        return [reason.encode("latin-1")]

    def start_response(self, status, headers, exc_info=None):
        writer = super().start_response(status, headers, exc_info=exc_info)
        self._prepare_response()
        return writer

    def _prepare_response(self):
        # After the handshake the socket is the WebSocket's: no body, no further request.
        assert not self.headers_sent
        if self.environ.get("wsgi.websocket"):
            self.provided_content_length = False
            self.response_use_chunked = False
            self.close_connection = True
            self.provided_date = True


def _has(value, token):
    """Whether a list of tokens holds one, in whatever case."""
    return token in [member.strip().lower() for member in value.split(",")]
