"""gevent.pywsgi when the application or the client does what it should not, in both of its ways.

Whatever goes wrong, what the client gets is framed as its head says, and no byte of one answer is
taken for another's.
"""

import contextlib
import gzip
import io
import os
import socket as plain_socket
import struct
import sys
import tempfile

import gevent
import gevent.event
import gevent.socket
import pytest
from gevent import pywsgi
from http_client import Client, serving
from pywsgi_ways import Subclass

pytestmark = pytest.mark.ours


GET = ["GET / HTTP/1.1", "Host: a"]


@pytest.mark.parametrize(
    "status, fields",
    [
        ("500 Oh", [("X-A", "b\r\nc")]),
        ("500 Oh", [("X-A", b"bytes")]),
        ("500 Oh", [("Content-Length", "many")]),
        ("500 Oh", [("Transfer-Encoding", "chunked")]),
        ("204 No Content", [("Content-Length", "5")]),
        ("103 Early Hints", []),
        ("101 Switching Protocols", [("Upgrade", "x")]),
        ("500 Oh", [("X A", "b")]),
        ("500 Oh", [("X-A:", "b")]),
        ("500 Oh", [("", "b")]),
        ("500 Oh", [("X-A", "b\0c")]),
        ("500 Oh\0", []),
        ("5x0 Oh", []),
    ],
)
def test_an_answer_that_is_refused_leaves_the_one_before_it(serve, status, fields):
    def application(environ, start_response):
        start_response("200 Fine", [("X-First", "1")])
        with pytest.raises((ValueError, AssertionError)):
            try:
                raise KeyError
            except KeyError:
                start_response(status, fields, sys.exc_info())
        return [b"whole"]

    with Client(serve(application).address) as client:
        answer = client.ask(GET)
        assert (answer.status, answer.reason, answer.body) == (200, "Fine", b"whole")
        assert answer.names == ["X-First", "Date", "Content-Length"]
        assert client.ask(GET).body == b"whole"


@pytest.mark.parametrize("body", [["text"], "text", [b"", "text"]])
def test_text_is_no_body(serve, body, capsys):
    def application(environ, start_response):
        start_response("200 OK", [])
        return body

    with Client(serve(application).address) as client:
        answer = client.ask(GET)
        assert (answer.status, answer.body) == (500, b"Internal Server Error")
        assert client.at_end()
    assert "TypeError" in capsys.readouterr().err


def test_a_date_of_the_applications_is_the_only_one(serve):
    def application(environ, start_response):
        start_response("200 OK", [("Date", "")])
        return [b"x"]

    with Client(serve(application).address) as client:
        assert client.ask(GET).names == ["Date", "Content-Length"]


def _slow_reader(address):
    """A connection whose client takes little at a time."""
    sock = plain_socket.socket()
    sock.setsockopt(plain_socket.SOL_SOCKET, plain_socket.SO_RCVBUF, 4096)
    sock.settimeout(30)
    sock.connect(address)
    return sock


def test_no_answer_in_the_middle_of_another(serve, capsys):
    """An error while the client takes a body: nothing is put where the rest of it should be."""

    def application(environ, start_response):
        write = start_response("200 OK", [("Content-Length", "8000000")])
        try:
            with gevent.Timeout(0.2, KeyError):
                write(b"x" * 8000000)
        finally:
            over.set()
        return []

    over = gevent.event.Event()

    server = serve(application)
    with contextlib.closing(_slow_reader(server.address)) as sock:
        sock.sendall("\r\n".join([*GET, "", ""]).encode())
        assert over.wait(30)
        got = gevent.get_hub().threadpool.apply(_all_of, (sock,))
    body = got.partition(b"\r\n\r\n")[2]
    assert len(body) < 8000000 and body.strip(b"x") == b""
    assert "KeyError" in capsys.readouterr().err


def _all_of(sock):
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_a_file_behind_a_written_block():
    """The file's bytes are in chunks, as the head of the answer has said."""

    def application(environ, start_response):
        write = start_response("200 OK", [])
        write(b"first,")
        file = tempfile.TemporaryFile()
        file.write(b"second" * 5000)
        file.seek(0)
        return environ["wsgi.file_wrapper"](file)

    with serving(application, pywsgi.WSGIServer) as server, Client(server.address) as client:
        for _ in range(2):
            assert client.ask(GET).body == b"first," + b"second" * 5000


class Upper(io.FileIO):
    """A file that gives something else than what is on the disk."""

    def read(self, size=-1):
        return super().read(size).upper()


def _opened(kind, path):
    if kind == "gzip":
        with gzip.open(path, "wb") as file:
            file.write(b"text" * 1000)
        return gzip.open(path)
    with open(path, "wb") as file:
        file.write(b"text" * 1000)
    if kind == "subclass":
        return Upper(path)
    if kind == "unbuffered":
        return open(path, "rb", buffering=0)
    if kind == "temporary":
        file = tempfile.NamedTemporaryFile()
        file.write(b"text" * 1000)
        file.seek(0)
        return file
    if kind == "written":
        file = open(path, "r+b")
        file.seek(3000)
        file.write(b"TEXT")
        file.seek(0)
        file.read(4)
        return file
    return open(path, "rb")


@pytest.mark.parametrize(
    "kind", ["plain", "gzip", "subclass", "unbuffered", "temporary", "written"]
)
def test_a_file_is_what_reading_it_gives(kind, tmp_path):
    def application(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](_opened(kind, tmp_path / "file"))

    with _opened(kind, tmp_path / "file") as file:
        expected = file.read()
    with serving(application, pywsgi.WSGIServer) as server, Client(server.address) as client:
        assert client.ask(GET).body == expected


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")
def test_a_file_that_does_not_know_its_size():
    def application(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](open("/proc/self/status", "rb"))

    with serving(application, pywsgi.WSGIServer) as server, Client(server.address) as client:
        assert b"Pid:" in client.ask(GET).body


def test_two_lengths_that_differ(serve, capsys):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Length", "5"), ("Content-Length", "7")])
        return [b"hello"]

    with Client(serve(application).address) as client:
        assert client.ask(GET).status == 500
    assert "AssertionError" in capsys.readouterr().err


def test_the_input_takes_keywords(serve):
    seen = []

    def application(environ, start_response):
        file = environ["wsgi.input"]
        seen[:] = [file.read(length=3), file.readline(size=2), file.readlines(hint=1)]
        start_response("200 OK", [])
        return [b""]

    with Client(serve(application).address) as client:
        client.ask(["POST / HTTP/1.1", "Host: a", "Content-Length: 10"], b"0123456\n89")
    assert seen == [b"012", b"34", [b"56\n"]]


def test_a_body_that_nobody_asked_for(serve):
    """A client that waits for leave to send its body is answered without, and closed."""

    def application(environ, start_response):
        start_response("403 No", [])
        return [b"no"]

    server = serve(application)
    head = ["POST / HTTP/1.1", "Host: a", "Content-Length: 5", "Expect: 100-continue"]
    with Client(server.address) as client:
        assert client.ask(head).status == 403
        client.sock.settimeout(30)
        assert client.at_end()


def test_two_greenlets_read_one_body(serve):
    """Each byte goes to one of them, and the next request stays what it is."""

    def application(environ, start_response):
        if environ["REQUEST_METHOD"] == "GET":
            start_response("200 OK", [])
            return [b"next"]
        read = environ["wsgi.input"].read
        readers = [gevent.spawn(read, 60000) for _ in range(2)]
        gevent.joinall(readers)
        start_response("200 OK", [])
        return [b"%d" % sum(len(reader.value or b"") for reader in readers)]

    with serving(application, pywsgi.WSGIServer) as server, Client(server.address) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        gevent.sleep(0.05)
        client.send(b"x" * 100000 + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.answer().body == b"100000"
        assert client.answer().body == b"next"


def test_the_time_for_a_head_counts_also_after_a_full_pool():
    """A client that was held back by a full pool has no more time than any other."""
    busy = gevent.event.Event()
    go_on = gevent.event.Event()

    def application(environ, start_response):
        busy.set()
        go_on.wait(20)
        start_response("200 OK", [])
        return [b"done"]

    limits = {"head_timeout": 2}
    with (
        serving(application, pywsgi.WSGIServer, spawn=1, attributes=limits) as server,
        Client(server.address) as slow,
        Client(server.address) as quick,
    ):
        slow.send(b"GET / HT")
        gevent.sleep(0.05)
        quick.send("\r\n".join([*GET, "", ""]).encode())
        assert busy.wait(20)
        slow.send(b"TP")
        gevent.sleep(0.05)
        go_on.set()
        assert quick.answer().body == b"done"
        assert slow.answer().status == 408
        assert slow.at_end()


def test_a_refused_client_that_is_gone_is_no_error(capsys):
    """What a scanner leaves behind is not worth a traceback."""
    listener = plain_socket.create_server(("127.0.0.1", 0))
    with listener, plain_socket.create_connection(listener.getsockname()) as client:
        accepted, address = listener.accept()
        reset = struct.pack("ii", 1, 0)
        client.setsockopt(plain_socket.SOL_SOCKET, plain_socket.SO_LINGER, reset)
    with gevent.socket.socket(fileno=accepted.detach()) as sock:
        handler = Subclass(sock, address, server=None)
        handler._is_refused = True
        handler._close_connection(is_answered=True)
    assert capsys.readouterr().err == ""


class Busy:
    """An application that reads no bodies; ``/wait`` waits until it is told to go on."""

    def __init__(self):
        self.entered = gevent.event.Event()
        self.go_on = gevent.event.Event()

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/wait":
            self.entered.set()
            assert self.go_on.wait(20)
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]


POST = b"POST /posted HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n"


@pytest.mark.parametrize("spawn", [1, "default"])
def test_a_request_behind_a_body_that_nobody_reads(spawn):
    """It needs no second place in the pool."""
    with (
        serving(Busy(), pywsgi.WSGIServer, spawn=spawn) as server,
        Client(server.address) as client,
    ):
        for _ in range(2):
            client.send(POST + b"unread" + b"GET /next HTTP/1.1\r\nHost: a\r\n\r\nGET /la")
            assert [client.answer().body for _ in range(2)] == [b"/posted", b"/next"]
            client.send(b"st HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.answer().body == b"/last"


def test_a_request_behind_a_late_body_waits_for_a_full_pool():
    busy = Busy()
    with (
        serving(busy, pywsgi.WSGIServer, spawn=1) as server,
        Client(server.address) as late,
        Client(server.address) as other,
    ):
        late.send(POST + b"un")
        assert late.answer().body == b"/posted"
        other.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        assert busy.entered.wait(20)
        late.send(b"readGET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        gevent.sleep(0.1)
        busy.go_on.set()
        assert other.answer().body == b"/wait"
        assert late.answer().body == b"/next"
        late.send(b"GET /again HTTP/1.1\r\nHost: a\r\n\r\n")
        assert late.answer().body == b"/again"


def test_an_upgrade_behind_another_request_needs_no_second_place():
    upgrade = b"GET /up HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"
    with (
        serving(Busy(), pywsgi.WSGIServer, spawn=1) as server,
        Client(server.address) as client,
    ):
        client.send(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n" + upgrade)
        assert [client.answer().body for _ in range(2)] == [b"/first", b"/up"]
        assert client.ask(GET).body == b"/"
