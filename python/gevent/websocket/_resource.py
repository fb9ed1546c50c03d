"""Applications as classes, a server for them, and paths that lead to them."""

import re

from gevent.pywsgi import WSGIServer
from gevent.websocket._errors import WebSocketError
from gevent.websocket._handler import WebSocketHandler

__all__ = ["BaseProtocol", "Resource", "WebSocketApplication", "WebSocketServer"]


class BaseProtocol:
    """Hands on what happens on a connection. A subclass may speak a subprotocol."""

    PROTOCOL_NAME = ""

    def __init__(self, app):
        self._app = app

    @property
    def app(self):
        """The application; a call of its own without one is an error."""
        if self._app is None:
            raise Exception("No application coupled")
        return self._app

    @property
    def server(self):
        return self.handler.server

    @property
    def handler(self):
        return self.app.ws.handler

    def on_open(self):
        self.app.on_open()

    def on_message(self, message):
        self.app.on_message(message)

    def on_close(self, reason=None):
        self.app.on_close(reason)


class WebSocketApplication:
    """One connection, in three methods to override. Made anew for each."""

    protocol_class = BaseProtocol

    def __init__(self, ws):
        self.protocol = self.protocol_class(self)
        self.ws = ws

    def handle(self):
        """Receive until the end."""
        self.protocol.on_open()
        try:
            while (message := self.ws.receive()) is not None:
                self.protocol.on_message(message)
                if self.ws.closed:
                    break
        except WebSocketError:
            # It was closed, or broke, while something was sent.
            pass
        finally:
            self.protocol.on_close(self.ws.close_reason)

    def on_open(self, *args, **kwargs):
        """The connection is there."""

    def on_close(self, *args, **kwargs):
        """The connection is closed."""

    def on_message(self, message, *args, **kwargs):
        """A message came. Sent back, by default."""
        self.ws.send(message, **kwargs)

    @classmethod
    def protocol_name(cls):
        return cls.protocol_class.PROTOCOL_NAME


class Resource:
    """A WSGI application of others, chosen by path.

    :param apps: a mapping, or pairs, of paths (regular expressions that match from their start)
        and applications: subclasses of :class:`WebSocketApplication`, or any WSGI application.
        The first that matches is taken.
    """

    def __init__(self, apps=None):
        self.apps = dict(apps or {})

    def _app_by_path(self, environ_path, is_websocket_request):
        for path, app in self.apps.items():
            if re.match(path, environ_path) and self._is_websocket_app(app) == is_websocket_request:
                return app
        return None

    @staticmethod
    def _is_websocket_app(app):
        return isinstance(app, type) and issubclass(app, WebSocketApplication)

    def app_protocol(self, path):
        """The subprotocol of the application at this path, or an empty string."""
        app = self._app_by_path(path, True)
        return getattr(app, "protocol_name", str)() if app is not None else ""

    def __call__(self, environ, start_response):
        ws = environ.get("wsgi.websocket")
        app = self._app_by_path(environ["PATH_INFO"], ws is not None)
        if app is None:
            if ws is not None:
                ws.close(1008, "No such resource")
                return []
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"Not Found"]
        if ws is not None:
            app(ws).handle()
            return []
        return app(environ, start_response)


class WebSocketServer(WSGIServer):
    """A :class:`gevent.pywsgi.WSGIServer` whose connections may become WebSockets."""

    handler_class = WebSocketHandler

    def __init__(self, *args, **kwargs):
        # Told by the package that this stands in for; nothing depends on it here.
        self.debug = kwargs.pop("debug", False)
        self.pre_start_hook = kwargs.pop("pre_start_hook", None)
        self.clients = {}
        super().__init__(*args, **kwargs)
