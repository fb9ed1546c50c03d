"""gevent.websocket: handshakes, messages, control frames, violations, closing."""

import struct
import zlib

import gevent
import pytest
from http_client import Client, serving
from websocket_client import (
    BINARY,
    CLOSE,
    MORE,
    PING,
    PONG,
    TEXT,
    WebSocketClient,
    frame,
)

websocket = pytest.importorskip("gevent.websocket")
pytestmark = pytest.mark.ours

from gevent.websocket import (  # noqa: E402
    Resource,
    WebSocketApplication,
    WebSocketError,
    WebSocketHandler,
    WebSocketServer,
)

OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"


def echo(environ, start_response):
    ws = environ.get("wsgi.websocket")
    if ws is None:
        start_response("200 OK", [])
        return [b"plain"]
    while (message := ws.receive()) is not None:
        ws.send(message)
    return []


@pytest.fixture
def server():
    with serving(echo, WebSocketServer) as server:
        yield server


@pytest.fixture
def client(server):
    with WebSocketClient(server.address) as client:
        yield client


def closed_by(payload):
    return frame(CLOSE, payload)


def test_handshake(client, server):
    answer = client.handshake
    assert (answer.status, answer.reason) == (101, "Switching Protocols")
    assert answer.fields["upgrade"] == "websocket"
    assert answer.fields["connection"].lower() == "upgrade"
    # From the key by RFC 6455 §4.2.2.
    assert answer.fields["sec-websocket-accept"] == "BACScCJPNqyz+UBoqMH89VmURoA="
    assert "content-length" not in answer.fields
    assert "sec-websocket-extensions" not in answer.fields


def test_other_requests_are_served(server):
    with Client(server.address) as client:
        for _ in range(2):
            assert client.ask(["GET / HTTP/1.1", "Host: a"]).body == b"plain"


@pytest.mark.parametrize(
    "settings, status",
    [
        ({"without": ["Sec-WebSocket-Key"]}, 400),
        ({"without": ["Sec-WebSocket-Version"]}, 426),
        ({"version": "99"}, 426),
    ],
)
def test_bad_handshakes(server, settings, status):
    with WebSocketClient(server.address, **settings) as client:
        assert client.handshake.status == status
        assert client.at_end()


def test_bad_keys(server):
    for key in ("short", "!" * 24, "AAAA"):
        fields = (f"Sec-WebSocket-Key: {key}",)
        with WebSocketClient(server.address, *fields, without=["Sec-WebSocket-Key"]) as client:
            assert client.handshake.status == 400


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 300000])
def test_echo(client, size):
    text = ("\u20ac" * size).encode()[: size - size % 3]
    client.send(frame(TEXT, text))
    assert client.frame() == (TEXT, text)
    data = bytes(range(256)) * (size // 256 + 1)
    client.send(frame(BINARY, data[:size]))
    assert client.frame() == (BINARY, data[:size])


def test_types():
    seen = []

    def application(environ, start_response):
        ws = environ["wsgi.websocket"]
        while (message := ws.receive()) is not None:
            seen.append(message)
        return []

    with serving(application, WebSocketServer) as server:
        with WebSocketClient(server.address) as client:
            client.send(frame(TEXT, "\xe4".encode()) + frame(BINARY, b"\xe4") + closed_by(b""))
            assert client.close_code() is None
    assert seen == ["\xe4", b"\xe4"]


def test_what_can_be_sent():
    def application(environ, start_response):
        ws = environ["wsgi.websocket"]
        ws.send("t")
        ws.send(b"b")
        ws.send(bytearray(b"ba"))
        ws.send(memoryview(b"mv"))
        ws.send(b"bytes as text", binary=False)
        ws.send("text as bytes", binary=True)
        ws.send(17, binary=False)
        ws.ping(b"p")
        return []

    with serving(application, WebSocketServer) as server:
        with WebSocketClient(server.address) as client:
            frames = [client.frame() for _ in range(9)]
    assert frames == [
        (TEXT, b"t"),
        (BINARY, b"b"),
        (BINARY, b"ba"),
        (BINARY, b"mv"),
        (TEXT, b"bytes as text"),
        (BINARY, b"text as bytes"),
        (TEXT, b"17"),
        (PING, b"p"),
        (CLOSE, struct.pack("!H", 1000)),
    ]


def test_a_message_byte_by_byte(client):
    for byte in frame(TEXT, b"slow"):
        client.send(bytes([byte]))
        gevent.sleep(0)
    assert client.frame() == (TEXT, b"slow")


def test_fragments_with_control_frames_between(client):
    client.send(
        frame(TEXT, b"\xe2", fin=False)
        + frame(PING, b"1")
        + frame(MORE, b"\x82\xac", fin=False)
        + frame(PONG, b"unasked")
        + frame(MORE, b"", fin=False)
        + frame(PING, b"2" * 125)
        + frame(MORE, b"!")
    )
    assert client.frame() == (PONG, b"1")
    assert client.frame() == (PONG, b"2" * 125)
    assert client.frame() == (TEXT, "\u20ac!".encode())


@pytest.mark.parametrize(
    "data, code",
    [
        # Autobahn's chapters 2 to 7, in short.
        (frame(PING, b"x" * 126), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(TEXT, b"x", rsv=4), 1002),
        (frame(TEXT, b"x", rsv=1), 1002),
        (frame(3, b"x"), 1002),
        (frame(11), 1002),
        (frame(TEXT, b"x", mask=False), 1002),
        (frame(MORE, b"x"), 1002),
        (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"\xed\xa0\x80"), 1007),
        (frame(TEXT, b"\xf4\x90", fin=False), 1007),
        (frame(TEXT, b"\xe2\x82", fin=False) + frame(MORE, b"x"), 1007),
        (closed_by(b"\x03"), 1002),
        (closed_by(struct.pack("!H", 999)), 1002),
        (closed_by(struct.pack("!H", 1005)), 1002),
        (closed_by(struct.pack("!H", 1006)), 1002),
        (closed_by(struct.pack("!H", 1016)), 1002),
        (closed_by(struct.pack("!H", 5000)), 1002),
        (closed_by(struct.pack("!H", 1000) + b"\xff"), 1007),
    ],
)
def test_violations(client, data, code):
    client.send(data)
    assert client.close_code() == code
    assert client.at_end()


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1011, 3000, 4999])
def test_the_client_closes(client, code):
    client.send(closed_by(struct.pack("!H", code) + b"bye"))
    assert client.close_code() == code
    assert client.at_end()


def test_nothing_after_the_clients_close(client):
    client.send(frame(TEXT, b"a") + closed_by(b"\x03\xe8") + frame(TEXT, b"b"))
    assert client.frame() == (TEXT, b"a")
    assert client.close_code() == 1000
    assert client.at_end()


def test_what_the_application_learns_of_the_end():
    seen = []

    def application(environ, start_response):
        ws = environ["wsgi.websocket"]
        seen.append(ws.receive())
        seen.append((ws.closed, ws.close_code, ws.close_reason))
        for call in (ws.receive, lambda: ws.send("x"), ws.ping):
            with pytest.raises(WebSocketError, match="already closed"):
                call()
        ws.close()
        seen.append("survived")
        return []

    with serving(application, WebSocketServer) as server:
        with WebSocketClient(server.address) as client:
            client.send(closed_by(struct.pack("!H", 4001) + b"why"))
            assert client.close_code() == 4001
        with WebSocketClient(server.address) as client:
            pass
        server.log.wait(2)
    assert seen == [None, (True, 4001, "why"), "survived", None, (True, 1006, ""), "survived"]


def test_the_server_closes():
    def application(environ, start_response):
        ws = environ["wsgi.websocket"]
        ws.send("last")
        ws.close(4000, "enough")
        assert ws.closed
        return []

    with serving(application, WebSocketServer) as server:
        with WebSocketClient(server.address) as client:
            assert client.frame() == (TEXT, b"last")
            opcode, payload = client.frame()
            assert (opcode, payload) == (CLOSE, struct.pack("!H", 4000) + b"enough")
            # It waits for ours before it ends the connection.
            client.send(frame(TEXT, b"too late"))
            gevent.sleep(0.02)
            client.send(closed_by(b"\x0f\xa0"))
            assert client.at_end()


def test_a_client_that_does_not_close_is_not_waited_for_for_ever():
    class Handler(WebSocketHandler):
        close_timeout = 0.05

    with serving(lambda e, s: [], WebSocketServer, handler_class=Handler) as server:
        with WebSocketClient(server.address) as client:
            assert client.close_code() == 1000
            assert client.at_end()


def test_an_application_that_fails(capsys):
    def application(environ, start_response):
        raise RuntimeError("oops")

    with serving(application, WebSocketServer) as server:
        with WebSocketClient(server.address) as client:
            assert client.close_code() == 1011
            client.send(closed_by(b"\x03\xf3"))
            assert client.at_end()
    assert "RuntimeError: oops" in capsys.readouterr().err


def test_big_messages_are_refused():
    class Handler(WebSocketHandler):
        max_message_size = 1000

    with serving(echo, WebSocketServer, handler_class=Handler) as server:
        for data in (
            frame(BINARY, b"x" * 1001),
            # Before it is sent.
            frame(BINARY, b"x" * 100000)[:20],
            frame(BINARY, b"x" * 600, fin=False) + frame(MORE, b"x" * 600),
        ):
            with WebSocketClient(server.address) as client:
                client.send(frame(BINARY, b"y" * 1000))
                assert client.frame() == (BINARY, b"y" * 1000)
                client.send(data)
                assert client.close_code() == 1009


def pack(data):
    packer = zlib.compressobj(wbits=-15)
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def test_compression(server):
    text = b"all work and no play " * 500
    with WebSocketClient(server.address, OFFER) as client:
        answer = client.handshake.fields["sec-websocket-extensions"]
        assert answer.startswith("permessage-deflate; ")
        for _ in range(2):
            client.send(frame(TEXT, pack(text), rsv=4))
            opcode, payload = client.frame()
            assert opcode == TEXT
            assert client.first & 0x40
            assert len(payload) < 500
            assert zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff") == text
        # Short ones stay as they are, and fragments are put together first.
        packed = pack(b"short")
        client.send(frame(TEXT, packed[:2], fin=False, rsv=4) + frame(MORE, packed[2:]))
        assert client.frame() == (TEXT, b"short")
        assert not client.first & 0x40
        client.send(frame(BINARY, b"plain"))
        assert client.frame() == (BINARY, b"plain")
        client.send(frame(TEXT, b"\xff\xff\xff", rsv=4))
        assert client.close_code() == 1007


def test_a_bomb(server):
    with WebSocketClient(server.address, OFFER) as client:
        client.send(frame(BINARY, pack(b"\0" * (17 << 20)), rsv=4))
        assert client.close_code() == 1009


def test_senders_do_not_mix():
    def application(environ, start_response):
        ws = environ["wsgi.websocket"]

        def many(letter):
            for _ in range(20):
                ws.send(letter * 50000)
                gevent.sleep(0)

        gevent.joinall([gevent.spawn(many, letter) for letter in "abcd"], raise_error=True)
        return []

    with serving(application, WebSocketServer) as server:
        with WebSocketClient(server.address) as client:
            for _ in range(80):
                opcode, payload = client.frame()
                assert opcode == TEXT
                assert payload == payload[:1] * 50000
                gevent.sleep(0)
            assert client.close_code() == 1000


def test_silent_clients_are_pinged():
    class Handler(WebSocketHandler):
        ping_interval = 0.05

    with serving(echo, WebSocketServer, handler_class=Handler) as server:
        with WebSocketClient(server.address) as client:
            for _ in range(2):
                assert client.frame() == (PING, b"")
                client.send(frame(PONG))
            client.send(frame(TEXT, b"here"))
            while (got := client.frame()) == (PING, b""):
                client.send(frame(PONG))
            assert got == (TEXT, b"here")
            # No answer to the next: the server gives up.
            assert client.frame() == (PING, b"")
            assert client.at_end()


def test_clients_and_log(server):
    with WebSocketClient(server.address) as client:
        client.send(frame(TEXT, b"x"))
        client.frame()
        (entry,) = server.clients.values()
        assert entry.ws.path == "/"
        assert entry.ws.version == "13"
        assert entry.address == client.sock.getsockname()
    assert '"GET / HTTP/1.1" 101 ' in server.log.wait(1)[0]
    assert server.clients == {}


def test_pre_start_hook(server):
    server.pre_start_hook = lambda handler: handler.path == "/plain"
    with WebSocketClient(server.address, path="/plain") as client:
        assert client.handshake.status == 200
    with WebSocketClient(server.address, path="/ws") as client:
        assert client.handshake.status == 101


def test_resource():
    events = []

    class Echo(WebSocketApplication):
        def on_open(self):
            events.append("open")

        def on_message(self, message):
            if message == "stop":
                self.ws.close()
            else:
                self.ws.send(message.upper())

        def on_close(self, reason):
            events.append(("close", reason))

    class Chat(WebSocketApplication):
        class protocol_class(websocket.BaseProtocol):
            PROTOCOL_NAME = "chat.v1"

    def page(environ, start_response):
        start_response("200 OK", [])
        return [b"page"]

    resource = Resource([("^/echo", Echo), ("^/chat", Chat), ("/", page)])
    with serving(resource, WebSocketServer) as server:
        with Client(server.address) as client:
            assert client.ask(["GET /index HTTP/1.1", "Host: a"]).body == b"page"
        with WebSocketClient(server.address, path="/echo") as client:
            assert "sec-websocket-protocol" not in client.handshake.fields
            client.send(frame(TEXT, b"abc"))
            assert client.frame() == (TEXT, b"ABC")
            client.send(frame(TEXT, b"stop"))
            assert client.close_code() == 1000
            client.send(closed_by(b"\x03\xe8"))
        with WebSocketClient(
            server.address, "Sec-WebSocket-Protocol: x, chat.v1", path="/chat"
        ) as client:
            assert client.handshake.fields["sec-websocket-protocol"] == "chat.v1"
        with WebSocketClient(server.address, path="/none") as client:
            assert client.close_code() == 1008
        server.log.wait(4)
    assert events == ["open", ("close", "")]


def test_stopping_a_server_leaves_nothing(server):
    with WebSocketClient(server.address) as client:
        client.send(frame(TEXT, b"x"))
        client.frame()
        server.stop(timeout=0.1)
        assert server.closed
