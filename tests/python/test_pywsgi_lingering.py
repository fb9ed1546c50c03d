"""Answers that come before the client has sent everything: they arrive, and nothing lasts."""

import contextlib
import os

import pytest
from http_client import Client, serving
from pywsgi_ways import Subclass

import gevent
from gevent import pywsgi, socket, ssl
from gevent.event import Event

pytestmark = [
    pytest.mark.ours,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

HERE = os.path.dirname(__file__)
FILES = {
    "certfile": os.path.join(HERE, "data", "localhost.crt"),
    "keyfile": os.path.join(HERE, "data", "localhost.key"),
}
WAYS = {
    "native": {},
    "handler": {"handler_class": Subclass},
    "native-tls": FILES,
    "handler-tls": {"handler_class": Subclass, **FILES},
}
BODY = 8 << 20
GET = ["GET / HTTP/1.1", "Host: a"]


def early(environ, start_response):
    """Reads nothing; says what was asked for."""
    start_response("200 OK", [("X-Path", environ["PATH_INFO"])])
    return [b"early"]


class TLSClient(Client):
    """As a `Client`, encrypted."""

    def __init__(self, address):
        super().__init__(address)
        self.rfile.close()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.sock = context.wrap_socket(self.sock)
        self.rfile = self.sock.makefile("rb")


@pytest.fixture(params=list(WAYS))
def way(request):
    return request.param


@pytest.fixture
def start(way):
    """Starts a server in this way, which listens as long as clients send; makes clients."""
    with contextlib.ExitStack() as stack:

        def begin(application=early, **settings):
            attributes = {"linger_timeout": None, **settings.pop("attributes", {})}
            settings = {**WAYS[way], **settings}
            server = stack.enter_context(
                serving(application, pywsgi.WSGIServer, attributes=attributes, **settings)
            )
            kind = TLSClient if way.endswith("tls") else Client
            return server, lambda: kind(server.address)

        yield begin


def chunked(size):
    return b"%x\r\n" % size + b"x" * size + b"\r\n0\r\n\r\n"


def wait_for(what):
    for _ in range(6000):
        if what():
            return
        gevent.sleep(0.005)
    raise AssertionError("it never came")


def is_over(server):
    """Whether the server has no connection left, be it one that it only listens to."""
    native = server._native
    return not server._connections and not server._lingering and not (native and native.connections)


UPLOADS = {
    "length": (["POST /up HTTP/1.1", "Host: a", f"Content-Length: {BODY}"], b"x" * BODY, True),
    "chunks": (
        ["POST /up HTTP/1.1", "Host: a", "Transfer-Encoding: chunked"],
        chunked(BODY),
        True,
    ),
    "close": (
        ["POST /up HTTP/1.1", "Host: a", "Connection: close", f"Content-Length: {BODY}"],
        b"x" * BODY,
        False,
    ),
    "1.0": (["POST /up HTTP/1.0", f"Content-Length: {BODY}"], b"x" * BODY, False),
    "1.0 kept": (
        ["POST /up HTTP/1.0", "Connection: keep-alive", f"Content-Length: {BODY}"],
        b"x" * BODY,
        True,
    ),
}


@pytest.mark.parametrize("upload", list(UPLOADS))
def test_an_early_answer_arrives(start, upload):
    """To a client that reads it when all is sent. If the connection was to go on, it does."""
    head, body, keeps = UPLOADS[upload]
    server, client = start()
    with client() as client:
        answer = client.ask(head, body)
        assert (answer.status, answer.fields["x-path"], answer.body) == (200, "/up", b"early")
        said = answer.fields.get("connection", "").lower()
        if keeps:
            assert said != "close"
            assert client.ask(GET).fields["x-path"] == "/"
        else:
            assert client.at_end()
    wait_for(lambda: is_over(server))


def test_a_body_that_was_not_asked_for(start):
    """It is answered without `100 Continue`. The client is told of the end, and may send it."""
    server, client = start()
    head = ["POST /up HTTP/1.1", "Host: a", "Expect: 100-continue", f"Content-Length: {BODY}"]
    with client() as client:
        answer = client.ask(head)
        assert (answer.status, answer.fields["connection"]) == (200, "close")
        client.send(b"x" * BODY)
        assert client.at_end()
    wait_for(lambda: is_over(server))


def test_a_body_that_came_before_it_was_asked_for(start):
    """The client has not waited for `100 Continue`, so the connection can go on."""
    server, client = start()
    head = ["POST /up HTTP/1.1", "Host: a", "Expect: 100-continue", "Content-Length: 7"]
    with client() as client:
        for _ in range(2):
            answer = client.ask(head, b"hello\r\n")
            assert (answer.status, answer.body) == (200, b"early")
            assert answer.fields.get("connection") != "close"
        assert client.ask(GET).fields["x-path"] == "/"


def test_no_leave_is_given_in_the_middle_of_an_answer(start):
    def application(environ, start_response):
        write = start_response("200 OK", [])
        write(b"begun,")
        return [environ["wsgi.input"].read()]

    server, client = start(application)
    head = ["POST /up HTTP/1.1", "Host: a", "Expect: 100-continue", "Content-Length: 7"]
    with client() as client:
        client.send("\r\n".join([*head, "", ""]).encode())
        assert client.rfile.readline() == b"HTTP/1.1 200 OK\r\n"
        client.send(b"hello\r\n")
        answer = client.rfile.read()
        assert b"Connection: close\r\n" in answer and b"HTTP/1.1 100" not in answer
        assert b"hello\r\n" in answer


def test_a_part_of_the_body_was_read(start):
    def application(environ, start_response):
        first = environ["wsgi.input"].read(10)
        start_response("403 No", [("Connection", "close")])
        return [first]

    server, client = start(application)
    head, body, _ = UPLOADS["length"]
    with client() as client:
        answer = client.ask(head, body)
        assert (answer.status, answer.body) == (403, b"x" * 10)
        assert client.at_end()
    wait_for(lambda: is_over(server))


def test_an_error_is_an_early_answer_too(start, capsys):
    def application(environ, start_response):
        raise KeyError("nothing was read")

    server, client = start(application)
    head, body, _ = UPLOADS["length"]
    with client() as client:
        answer = client.ask(head, body)
        assert (answer.status, answer.fields["connection"]) == (500, "close")
        assert client.at_end()
    wait_for(lambda: is_over(server))
    assert "KeyError" in capsys.readouterr().err


REFUSED = {
    413: ["POST / HTTP/1.1", "Host: a", f"Content-Length: {BODY}"],
    400: ["POST / HTTP/1.1", "Host: a", "Content-Length: +1"],
    414: ["POST /" + "x" * 9000 + " HTTP/1.1", "Host: a"],
    431: ["POST / HTTP/1.1", "Host: a", *["A: b"] * 200],
    501: ["POST / HTTP/1.1", "Host: a", "Transfer-Encoding: gzip"],
}


@pytest.mark.parametrize("status", list(REFUSED))
def test_a_refusal_arrives(start, status):
    """While the client sends a body that the server may not even have understood."""
    server, client = start(attributes={"max_body": 1000})
    with client() as client:
        answer = client.ask(REFUSED[status], b"x" * BODY)
        assert (answer.status, answer.fields["connection"]) == (status, "close")
        assert client.at_end()
    wait_for(lambda: is_over(server))


def test_a_body_that_spoils_in_the_middle(start):
    def application(environ, start_response):
        data = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [data]

    server, client = start(application)
    head = ["POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked"]
    with client() as client:
        answer = client.ask(head, b"5\r\nhello\r\nzz\r\n" + b"x" * BODY)
        assert answer.status == 400
        assert client.at_end()
    wait_for(lambda: is_over(server))


def test_a_pipeline_goes_on_behind_the_last_answer(start):
    """Nothing is answered behind `Connection: close`; what the client still sends does no harm."""
    server, client = start()
    more = "".join(line + "\r\n" for line in [*GET, ""]).encode()
    with client() as client:
        answer = client.ask([*GET, "Connection: close"], more * (BODY // 4 // len(more)))
        assert answer.body == b"early"
        assert client.at_end()
    wait_for(lambda: is_over(server))


@pytest.mark.parametrize("way", ["native", "handler"], indirect=True)
@pytest.mark.parametrize("close", [True, False])
def test_a_client_that_has_said_its_last(start, close):
    """In the middle of the body: nothing is waited for."""
    server, client = start()
    head = ["POST / HTTP/1.1", "Host: a", "Content-Length: 1000"]
    with client() as client:
        client.send("\r\n".join([*head, *["Connection: close"] * close, "", "half"]).encode())
        client.sock.shutdown(socket.SHUT_WR)
        assert client.answer().body == b"early"
        assert client.at_end()
        wait_for(lambda: is_over(server))


@pytest.mark.parametrize("upload", ["length", "close", "endless chunk", "refused"])
def test_a_client_that_never_stops_is_closed(start, upload):
    endless = ["POST / HTTP/1.1", "Host: a", "Content-Length: 999999999999"]
    heads = {
        "length": endless,
        "close": [*endless, "Connection: close"],
        "endless chunk": ["POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked"],
        "refused": ["POST / HTTP/1.1", "Host: a", "Content-Length: no"],
    }
    server, client = start(attributes={"linger_timeout": 0.2})
    with client() as client:
        first = b"ffffffffffff\r\n" if upload == "endless chunk" else b""
        assert client.ask(heads[upload], first).status == (400 if upload == "refused" else 200)
        with pytest.raises(OSError):
            while True:
                client.send(b"x" * 65536)
        wait_for(lambda: is_over(server))


def test_floods_leave_others_their_turn(start):
    """Clients that send as fast as they can; each other request is answered."""
    server, client = start(spawn=3)
    stop = []

    def flood():
        with client() as flooding, contextlib.suppress(OSError):
            head = ["POST / HTTP/1.1", "Host: a", "Content-Length: 999999999999"]
            head += ["Connection: close"]
            assert flooding.ask(head).body == b"early"
            while not stop:
                flooding.send(b"x" * 65536)
                gevent.sleep(0)

    floods = [gevent.spawn(flood) for _ in range(5)]
    try:
        for _ in range(20):
            with client() as other:
                assert other.ask(GET).body == b"early"
        assert not any(flood.ready() for flood in floods)
    finally:
        stop.append(True)
        gevent.joinall(floods, raise_error=True)
    wait_for(lambda: is_over(server))


@pytest.mark.parametrize("way", ["native", "handler"], indirect=True)
def test_a_client_that_is_listened_to_takes_no_place_in_the_pool(start):
    server, client = start(spawn=1)
    head = ["POST / HTTP/1.1", "Host: a", "Connection: close", "Content-Length: 1000"]
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            slow = stack.enter_context(client())
            assert slow.ask(head).body == b"early"
        with client() as other:
            assert other.ask([*GET, "Connection: close"]).body == b"early"
        assert not is_over(server)
    wait_for(lambda: is_over(server))


@pytest.mark.parametrize("way", ["native", "handler"], indirect=True)
def test_a_server_that_ends_listens_no_longer(start):
    server, client = start()
    head = ["POST / HTTP/1.1", "Host: a", "Connection: close", "Content-Length: 1000"]
    with client() as client:
        assert client.ask(head).body == b"early"
        assert not server.drained()
        server.stop(timeout=1)
        wait_for(server.drained)
        assert client.at_end()


def test_an_application_that_reads_on_after_its_answer_has_begun(start):
    """Nothing is thrown away while it may be read."""

    def application(environ, start_response):
        write = start_response("200 OK", [])
        write(b"begun,")
        while piece := environ["wsgi.input"].read(65536):
            assert piece.strip(b"x") == b""
            seen.append(len(piece))
        return [b"%d" % sum(seen)]

    seen = []
    server, client = start(application)
    head, body, _ = UPLOADS["length"]
    with client() as client:
        sender = gevent.spawn(client.send, "\r\n".join([*head, "", ""]).encode() + body)
        assert client.answer().body == b"begun,%d" % BODY
        sender.get()
        assert client.ask(GET).body == b"begun,%d" % BODY
    wait_for(lambda: is_over(server))


def test_the_rest_of_a_body_may_come_late(start):
    """The connection goes on when it is there."""
    go_on = Event()

    def application(environ, start_response):
        go_on.set()
        return early(environ, start_response)

    server, client = start(application)
    with client() as client:
        client.send(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf")
        assert go_on.wait(30)
        assert client.answer().fields["x-path"] == "/up"
        client.send(b"half")
        assert client.ask(GET).fields["x-path"] == "/"
