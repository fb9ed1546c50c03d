"""A chat room and an echo over WebSockets, with the page that uses them.

python examples/websocket_chat.py [PORT]

/       the page: open it in two windows
/chat   what one says, all hear
/echo   what is sent comes back
"""

import pathlib
import sys

from gevent import pywsgi
from gevent.websocket import WebSocketError, WebSocketHandler

PAGE = pathlib.Path(__file__).with_name("websocket_chat.html")

members = set()


def chat(websocket):
    """Tell everybody what this one says."""
    members.add(websocket)
    try:
        while (message := websocket.receive()) is not None:
            for other in list(members):
                try:
                    other.send(message)
                except WebSocketError:
                    # Gone; its own greenlet sees to it.
                    pass
    finally:
        members.discard(websocket)


def echo(websocket):
    """Send back what comes, as it came: text as text, bytes as bytes."""
    while (message := websocket.receive()) is not None:
        websocket.send(message)


def application(environ, start_response):
    path, websocket = environ["PATH_INFO"], environ.get("wsgi.websocket")
    rooms = {"/chat": chat, "/echo": echo}
    if websocket is not None and path in rooms:
        rooms[path](websocket)
        return []
    if path == "/":
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [PAGE.read_bytes()]
    start_response("404 Not Found", [("Content-Type", "text/plain")])
    return [b"no such page\n"]


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    server = pywsgi.WSGIServer(("127.0.0.1", port), application, handler_class=WebSocketHandler)
    server.start()
    print(f"http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
