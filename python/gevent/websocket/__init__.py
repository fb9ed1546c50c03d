"""WebSockets (RFC 6455) on :class:`gevent.pywsgi.WSGIServer`.

    from gevent.pywsgi import WSGIServer
    from gevent.websocket import WebSocketHandler

    def application(environ, start_response):
        websocket = environ["wsgi.websocket"]
        while (message := websocket.receive()) is not None:
            websocket.send(message)

    WSGIServer(("", 8080), application, handler_class=WebSocketHandler).serve_forever()

Names and behaviour are those of the gevent-websocket package, which is no longer maintained; its
modules can be stood in for (:func:`install_as_geventwebsocket`).
"""

from gevent.websocket._alias import install_as_geventwebsocket
from gevent.websocket._connection import (
    MSG_ALREADY_CLOSED,
    MSG_CLOSED,
    MSG_SOCKET_DEAD,
    Stream,
    WebSocket,
)
from gevent.websocket._errors import FrameTooLargeException, ProtocolError, WebSocketError
from gevent.websocket._handler import Client, WebSocketHandler
from gevent.websocket._resource import (
    BaseProtocol,
    Resource,
    WebSocketApplication,
    WebSocketServer,
)

__all__ = [
    "WebSocket",
    "WebSocketHandler",
    "WebSocketServer",
    "WebSocketApplication",
    "Resource",
    "WebSocketError",
    "install_as_geventwebsocket",
]

for _class in (
    WebSocket,
    Stream,
    WebSocketHandler,
    Client,
    WebSocketServer,
    WebSocketApplication,
    BaseProtocol,
    Resource,
    WebSocketError,
    ProtocolError,
    FrameTooLargeException,
):
    _class.__module__ = __name__
del _class
