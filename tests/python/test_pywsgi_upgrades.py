"""Requests that ask for another protocol, or seem to; upgrades that are ignored or refused."""

import contextlib
import os

import pytest
from http_client import Client, serving
from pywsgi_ways import Subclass

from gevent import pywsgi, ssl

pytestmark = [pytest.mark.ours, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

HERE = os.path.dirname(__file__)
FILES = {
    "certfile": os.path.join(HERE, "data", "localhost.crt"),
    "keyfile": os.path.join(HERE, "data", "localhost.key"),
}
WAYS = {"native": {}, "handler": {"handler_class": Subclass}, "tls": FILES}
GET = ["GET / HTTP/1.1", "Host: a"]


@pytest.fixture(params=list(WAYS))
def way(request):
    return request.param


@pytest.fixture
def connect(way):
    """Serves an application in this way, and connects to it."""
    with contextlib.ExitStack() as stack:

        def begin(application, **settings):
            server = stack.enter_context(
                serving(application, pywsgi.WSGIServer, **{**WAYS[way], **settings})
            )
            client = stack.enter_context(Client(server.address))
            if way == "tls":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
                client.rfile.close()
                client.sock = context.wrap_socket(client.sock)
                client.rfile = client.sock.makefile("rb")
            return client

        yield begin


@pytest.mark.parametrize(
    "fields",
    [
        ["Connection: upgrade"],
        ["Connection: Upgrade, keep-alive"],
        ["Connection: upgrade", "Upgrade:"],
        ["Connection: upgrade", "Upgrade: h2c"],
        ["Upgrade: websocket"],
        ["Upgrade: websocket", "Connection: keep-alive"],
        ["Upgrade: something/1.1"],
    ],
)
def test_what_is_no_upgrade(connect, way, fields):
    """It is a request as any other."""
    seen = []

    def application(environ, start_response):
        data = environ["wsgi.input"].read()
        seen.append((environ["wsgi.input_terminated"], "wsgi.file_wrapper" in environ))
        start_response("200 OK", [])
        return [data + b"."]

    client = connect(application)
    for _ in range(2):
        answer = client.ask([*GET, *fields])
        assert (answer.body, "connection" in answer.fields) == (b".", False)
        post = ["POST / HTTP/1.1", "Host: a", *fields, "Content-Length: 4"]
        assert client.ask(post, b"data").body == b"data."
        post = ["POST / HTTP/1.1", "Host: a", *fields, "Transfer-Encoding: chunked"]
        assert client.ask(post, b"2\r\nda\r\n2\r\nta\r\n0\r\n\r\n").body == b"data."
    # Only the native server, with the handlers that it asks for help, sends files.
    assert set(seen) == {(True, way != "handler")}


def test_close_is_heeded_beside_it(connect):
    client = connect(lambda environ, start_response: start_response("200 OK", []) and [b"."])
    assert client.ask([*GET, "Connection: upgrade, close"]).body == b"."
    assert client.at_end()


@pytest.mark.parametrize("protocol", ["websocket", "WebSocket", "foo/1", "h2c, foo", "TLS/1.0"])
@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "426 Upgrade Required"])
def test_an_upgrade_that_is_ignored_or_refused(connect, way, protocol, status):
    """The connection goes on as HTTP's, with whatever came behind the request."""
    seen = []

    def application(environ, start_response):
        file = environ["wsgi.input"]
        seen.append([environ["wsgi.input_terminated"], file.read(), file.readline(), list(file)])
        assert ("wsgi.file_wrapper" in environ) == (way != "handler")
        start_response(status, [("Upgrade", "foo")])
        return [b"no"]

    client = connect(application)
    upgrade = [*GET, "Connection: keep-alive, Upgrade", f"Upgrade: {protocol}"]
    more = ("\r\n".join([*upgrade, "", ""]) + "\r\n".join([*GET, "", ""])).encode()
    for answer in [client.ask(upgrade, more), client.answer(), client.answer(), client.ask(GET)]:
        assert f"{answer.status} {answer.reason}" == status
        assert (answer.body, "connection" in answer.fields) == (b"no", False)
    assert seen[0] == [False, b"", b"", []]
    assert seen[2] == [True, b"", b"", []]


@pytest.mark.parametrize("way", ["native", "tls"], indirect=True)
def test_a_file_for_a_request_whose_upgrade_is_ignored(connect, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"text" * 50000)

    def application(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](open(path, "rb"))

    client = connect(application)
    for fields in ["Connection: upgrade"], ["Connection: upgrade", "Upgrade: x"], []:
        assert client.ask([*GET, *fields]).body == b"text" * 50000


UPGRADE = [*GET, "Connection: Upgrade", "Upgrade: lines"]


def test_an_upgrade(connect):
    """`wsgi.input` gives nothing before the 101, and what comes after it."""

    def application(environ, start_response):
        file = environ["wsgi.input"]
        before = file.read()
        write = start_response("101 Switching Protocols", [("Upgrade", "lines")])
        write(before)
        for line in iter(file.readline, b"end\n"):
            write(line.upper())
        write(file.read(3))
        return []

    client = connect(application)
    assert client.ask(UPGRADE, b"first\n").status == 101
    assert client.rfile.readline() == b"FIRST\n"
    client.send(b"second\n")
    assert client.rfile.readline() == b"SECOND\n"
    client.send(b"end\nraw")
    assert client.rfile.read() == b"raw"


def test_an_application_that_takes_the_socket(connect):
    """As simple-websocket does. No further request is served on the connection."""

    def application(environ, start_response):
        sock = environ["wsgi.input"].raw._sock
        assert environ["wsgi.input"].read() == b""
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        sock.sendall(sock.recv(100).upper())
        return []

    client = connect(application)
    assert client.ask(UPGRADE).status == 101
    client.send(b"hello")
    assert client.rfile.read() == b"HELLO"


def test_an_application_that_takes_the_socket_in_vain(connect):
    """It answers by HTTP after all: the client is told that this is the end."""

    def application(environ, start_response):
        assert environ["wsgi.input"].rfile.raw._sock is not None
        start_response("400 Bad Request", [])
        return [b"no"]

    client = connect(application)
    answer = client.ask(UPGRADE)
    assert (answer.status, answer.body, answer.fields["connection"]) == (400, b"no", "close")
    assert client.at_end()


def test_an_application_that_answers_nothing(connect):
    client = connect(lambda environ, start_response: [])
    client.send("\r\n".join([*UPGRADE, "", *GET, "", ""]).encode())
    assert client.at_end()


@pytest.mark.parametrize(
    "head",
    [
        GET,
        [*GET, "Connection: upgrade"],
        ["GET / HTTP/1.0", "Connection: upgrade", "Upgrade: lines"],
        ["POST / HTTP/1.1", *UPGRADE[1:], "Content-Length: 3"],
        [*GET, "Connection: upgrade", "Upgrade: h2c"],
    ],
)
@pytest.mark.parametrize("status", ["101 Switching Protocols", "100 Continue", "103 Early Hints"])
def test_no_final_status(connect, head, status, capsys):
    """Nobody has asked for another protocol: an application cannot answer so."""

    def application(environ, start_response):
        start_response(status, [])
        return []

    client = connect(application)
    answer = client.ask(head, b"abc" if "Content-Length: 3" in head else b"")
    assert (answer.status, answer.fields["connection"]) == (500, "close")
    assert client.at_end()
    assert "is no final status" in capsys.readouterr().err


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "405 Method Not Allowed"])
def test_connect(connect, status):
    """What follows is never a request; behind a 2xx it is a tunnel, whose answer has no length."""

    def application(environ, start_response):
        body = b"" if status.startswith("204") else b"body"
        start_response(status, [("Content-Length", str(len(body)))])
        return [body]

    client = connect(application)
    lines = ["CONNECT a:80 HTTP/1.1", "Host: a:80", "", *GET, "", ""]
    client.send("\r\n".join(lines).encode())
    answer = client.answer()
    assert f"{answer.status} {answer.reason}" == status
    if status.startswith("2"):
        assert not {"content-length", "transfer-encoding"} & set(answer.fields)
        assert answer.body + client.rfile.read() in (b"", b"body")
    else:
        assert (answer.body, answer.fields["connection"]) == (b"body", "close")
        assert client.at_end()
