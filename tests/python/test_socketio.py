"""Flask-SocketIO and python-engineio in their `gevent` mode, with python-socketio's own client.

The server is a process that is patched; the client is one that knows no gevent. WebSockets are ours
in one way, and simple-websocket's on our server in the other.
"""

import pytest
from http_load import Process

pytest.importorskip("flask_socketio", reason="Flask-SocketIO is not installed")
pytest.importorskip("socketio", reason="python-socketio is not installed")
pytestmark = pytest.mark.ours

SERVER = """\
import sys
from gevent import monkey
monkey.patch_all()
if sys.argv[1] == "ours":
    from gevent.websocket import install_as_geventwebsocket
    assert install_as_geventwebsocket()
from gevent import pywsgi
from flask import Flask
from flask_socketio import SocketIO, emit

app = Flask(__name__)
sockets = SocketIO(app, async_mode="gevent", ping_interval=1)

@sockets.on("hello")
def hello(data):
    emit("world", {"got": data})
    return "done"

@sockets.on("bytes")
def turn_round(data):
    emit("world", data[::-1])

start = pywsgi.WSGIServer.start
def telling(server):
    start(server)
    print("port", server.server_port, server.handler_class.__module__, flush=True)
pywsgi.WSGIServer.start = telling
sockets.run(app, "127.0.0.1", 0)
"""

CLIENT = """\
import sys, threading, time
import socketio

url, transports = sys.argv[1], sys.argv[2].split(",")
client = socketio.Client(reconnection=False)
got, all_there = [], threading.Event()

@client.on("world")
def world(data):
    got.append(data)
    if len(got) == 3:
        all_there.set()

client.connect(url, transports=transports)
if len(transports) == 2:
    deadline = time.monotonic() + 20
    while client.transport() != "websocket":
        assert time.monotonic() < deadline, "it was not upgraded"
        time.sleep(0.02)
assert client.call("hello", "text") == "done"
client.emit("hello", {"a": [1, "\\u20ac"]})
data = bytes(range(256)) * 400
client.emit("bytes", data)
assert all_there.wait(20), got
assert {"got": "text"} in got and {"got": {"a": [1, "\\u20ac"]}} in got and data[::-1] in got
# The server pings once a second.
time.sleep(1.3)
assert client.connected
print("fine over", client.transport(), flush=True)
client.disconnect()
"""


@pytest.mark.parametrize("way", ["ours", "simple"])
def test_python_socketio(tmp_path, way):
    for name, text in (("server.py", SERVER), ("client.py", CLIENT)):
        tmp_path.joinpath(name).write_text(text)
    with Process(["server.py", way], tmp_path) as server:
        port, handler = server.wait_for(r"port (\d+) (\S+)").groups()
        assert handler == ("gevent.websocket" if way == "ours" else "gevent.pywsgi")
        url = f"http://127.0.0.1:{port}"
        ways = ["polling", "websocket", "polling,websocket"]
        clients = [Process(["client.py", url, transports], tmp_path) for transports in ways]
        for transports, client in zip(ways, clients):
            with client:
                assert client.end() == 0, (transports, client.output, server.output)
                assert f"fine over {transports.split(',')[-1]}" in client.output
        assert "Traceback" not in server.output
