"""Flask-Sock, which is simple-websocket on Flask: it takes the socket of an upgrade by itself.

The server is a process that is patched, in each way to serve.
"""

import pytest
from http_client import Client
from http_load import Process
from websocket_client import CLOSE, TEXT, WebSocketClient, frame

pytest.importorskip("flask_sock", reason="Flask-Sock is not installed")
pytestmark = pytest.mark.ours

SERVER = """\
import sys
from gevent import monkey
monkey.patch_all()
from gevent import pywsgi
from flask import Flask
from flask_sock import Sock

app = Flask(__name__)
sock = Sock(app)

@sock.route("/echo")
def echo(ws):
    while (data := ws.receive()) != "end":
        ws.send(data)

@app.route("/plain")
def plain():
    return "plain"

class Handler(pywsgi.WSGIHandler):
    def get_environ(self):
        return super().get_environ()

ways = {"native": {}, "handler": {"handler_class": Handler}}
server = pywsgi.WSGIServer(("127.0.0.1", 0), app, **ways[sys.argv[1]])
server.start()
print("port", server.server_port, flush=True)
server.serve_forever()
"""

GET = ["GET /plain HTTP/1.1", "Host: a", "Connection: upgrade"]


@pytest.mark.parametrize("way", ["native", "handler"])
def test_flask_sock(tmp_path, way):
    tmp_path.joinpath("server.py").write_text(SERVER)
    with Process(["server.py", way], tmp_path) as server:
        address = "127.0.0.1", int(server.wait_for(r"port (\d+)")[1])
        with WebSocketClient(address, path="/echo") as client:
            assert client.handshake.status == 101
            for text in b"first", b"x" * 70000:
                client.send(frame(TEXT, text))
                assert client.frame() == (TEXT, text)
            client.send(frame(TEXT, b"end"))
            assert client.frame()[0] == CLOSE
            client.send(frame(CLOSE))
            assert client.at_end()
        with Client(address) as client:
            # Flask refuses a WebSocket that it has no route for, and the connection goes on.
            assert client.ask([*GET, "Upgrade: websocket"]).status == 400
            assert client.ask([*GET, "Upgrade: other"]).body == b"plain"
            assert client.ask(GET).body == b"plain"
            assert client.ask(["GET /echo HTTP/1.1", *GET[1:]]).status == 400
            assert client.ask(GET).body == b"plain"
