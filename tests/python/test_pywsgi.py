"""gevent.pywsgi over the wire: requests, answers, connections and logs, in both of its ways.

Each body runs with the stock handler and with a subclass of it that changes nothing.
"""

import re
import sys

import gevent
import pytest
from gevent import pywsgi
from gevent.pool import Pool
from http_client import Client, Log, serving
from pywsgi_ways import Subclass


HELLO = ["GET / HTTP/1.1", "Host: a"]


def hello(environ, start_response):
    start_response("200 OK", [("X-A", "b")])
    return [b"hel", b"lo"]


def say(text):
    """An application that answers so."""

    def application(environ, start_response):
        start_response("200 OK", [])
        return [text]

    return application


def test_answer(serve):
    with Client(serve(hello).address) as client:
        answer = client.ask(HELLO)
        assert (answer.version, answer.status, answer.reason) == ("HTTP/1.1", 200, "OK")
        assert answer.names == ["X-A", "Date", "Content-Length"]
        assert answer.body == b"hello"
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", answer.fields["date"])


def test_keep_alive_and_close(serve):
    server = serve(hello)
    with Client(server.address) as client:
        for _ in range(3):
            assert client.ask(HELLO).body == b"hello"
        assert client.ask([*HELLO, "Connection: close"]).body == b"hello"
        assert client.at_end()
    with Client(server.address) as client:
        assert client.ask("GET / HTTP/1.0").fields["connection"] == "close"
        assert client.at_end()
    with Client(server.address) as client:
        for _ in range(2):
            answer = client.ask(["GET / HTTP/1.0", "Connection: keep-alive"])
            assert answer.fields["connection"] == "keep-alive"


def test_the_application_may_close(serve):
    def application(environ, start_response):
        start_response("200 OK", [("Connection", "close"), ("Date", "now")])
        return [b"bye"]

    with Client(serve(application).address) as client:
        answer = client.ask(HELLO)
        assert answer.names == ["Connection", "Date", "Content-Length"]
        assert client.at_end()


def test_pipeline(serve):
    def application(environ, start_response):
        if environ["PATH_INFO"] == "/1":
            gevent.sleep(0.01)
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    with Client(serve(application).address) as client:
        heads = "".join(f"GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n" for n in range(20))
        client.send(heads.encode())
        assert [client.answer().body for _ in range(20)] == [b"/%d" % n for n in range(20)]


def test_pipelined_bodies_stay_apart(serve):
    def application(environ, start_response):
        start_response("200 OK", [])
        return [environ["wsgi.input"].read(2)]

    with Client(serve(application).address) as client:
        sized = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabcde"
        chunked = (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;x=y\r\nxyz\r\n0\r\nT: v\r\n\r\n"
        )
        client.send((sized + chunked) * 3)
        assert [client.answer().body for _ in range(6)] == [b"ab", b"xy"] * 3


def test_environ(serve):
    seen = {}

    def application(environ, start_response):
        seen.clear()
        seen.update(environ)
        start_response("200 OK", [])
        return [str(type(environ)).encode()]

    server = serve(application, environ={"my.key": 1})
    with Client(server.address) as client:
        answer = client.ask(
            [
                "POST /a%20b/%E4;c?d=%20e&f HTTP/1.1",
                "Host: example:81",
                "Content-Type: text/x; a=b",
                "Content-Length: 3",
                "Cookie: a=1",
                "X-Two: 1",
                "cookie: b=2",
                "x-two: 2",
                "X_Dropped: 1",
            ],
            b"abc",
        )
        port = client.sock.getsockname()[1]
    assert answer.body == b"<class 'dict'>"
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/\xe4;c",
        "QUERY_STRING": "d=%20e&f",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": str(server.server_port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": str(port),
        "GATEWAY_INTERFACE": "CGI/1.1",
        "CONTENT_TYPE": "text/x; a=b",
        "CONTENT_LENGTH": "3",
        "HTTP_HOST": "example:81",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_TWO": "1,2",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "my.key": 1,
    }
    assert {key: seen.get(key) for key in expected} == expected
    assert not [key for key in seen if "DROPPED" in key]
    assert seen["SERVER_SOFTWARE"].startswith("gevent/")
    assert seen["wsgi.errors"] is server.error_log


def test_environ_is_a_new_one_each_time(serve):
    def application(environ, start_response):
        old = environ.get("left")
        environ["left"] = "behind"
        start_response("200 OK", [])
        return [str(old).encode()]

    with Client(serve(application).address) as client:
        assert [client.ask(HELLO).body for _ in range(3)] == [b"None"] * 3


@pytest.mark.ours
def test_absolute_target(serve):
    def application(environ, start_response):
        start_response("200 OK", [])
        parts = environ["PATH_INFO"], environ["QUERY_STRING"], environ["HTTP_HOST"]
        return [" ".join(parts).encode()]

    with Client(serve(application).address) as client:
        answer = client.ask(["GET http://b:8/c/d?e HTTP/1.1", "Host: a"])
        assert answer.body == b"/c/d e b:8"


@pytest.mark.ours
def test_head_has_no_body(serve):
    def application(environ, start_response):
        start_response("200 OK", [])
        return iter([b"a"]) if environ["PATH_INFO"] == "/stream" else [b"abc"]

    with Client(serve(application).address) as client:
        answer = client.ask(["HEAD / HTTP/1.1", "Host: a"], method="HEAD")
        assert answer.fields["content-length"] == "3"
        answer = client.ask(["HEAD /stream HTTP/1.1", "Host: a"], method="HEAD")
        assert "content-length" not in answer.fields
        assert client.ask(HELLO).body == b"abc"


@pytest.mark.parametrize("code", ["204 No Content", "304 Not Modified"])
def test_no_body_without_one(serve, code):
    def application(environ, start_response):
        start_response(code, [])
        return []

    with Client(serve(application).address) as client:
        for _ in range(2):
            answer = client.ask(HELLO)
            assert answer.status == int(code[:3])
            assert "content-length" not in answer.fields
            assert "transfer-encoding" not in answer.fields


def test_streams_in_chunks(serve):
    def application(environ, start_response):
        start_response("200 OK", [])
        for piece in (b"", b"a", b"", b"bc"):
            gevent.sleep(0)
            yield piece

    server = serve(application)
    with Client(server.address) as client:
        for _ in range(2):
            answer = client.ask(HELLO)
            assert answer.fields["transfer-encoding"] == "chunked"
            assert answer.chunks == [b"a", b"bc"]
    with Client(server.address) as client:
        answer = client.ask("GET / HTTP/1.0")
        assert "transfer-encoding" not in answer.fields
        assert answer.body == b"abc"


def test_write(serve):
    def application(environ, start_response):
        write = start_response("200 OK", [("Content-Length", "6")])
        write(b"ab")
        write(b"")
        gevent.sleep(0)
        write(bytearray(b"cd"))
        return [memoryview(b"ef")]

    with Client(serve(application).address) as client:
        for _ in range(2):
            assert client.ask(HELLO).body == b"abcdef"


def test_big_answers(serve):
    body = bytes(range(256)) * 20000

    def application(environ, start_response):
        start_response("200 OK", [])
        return [body] if environ["PATH_INFO"] == "/" else iter([body[:3000000], body[3000000:]])

    with Client(serve(application).address) as client:
        assert client.ask(HELLO).body == body
        assert client.ask(["GET /iter HTTP/1.1", "Host: a"]).body == body
        assert client.ask(HELLO).body == body


def test_input_in_every_way(serve):
    ways = {
        "/read": lambda f: [f.read()],
        "/read-1": lambda f: [f.read(-1)],
        "/reads": lambda f: list(iter(lambda: f.read(3), b"")),
        "/line": lambda f: list(iter(f.readline, b"")),
        "/line2": lambda f: list(iter(lambda: f.readline(2), b"")),
        "/lines": lambda f: f.readlines(),
        "/hint": lambda f: [b"".join(f.readlines(1)) + f.read()],
        "/iter": list,
        "/mixed": lambda f: [f.read(1), f.readline(), f.read(2), *f, f.read(), f.readline()],
    }

    def application(environ, start_response):
        pieces = ways[environ["PATH_INFO"]](environ["wsgi.input"])
        start_response("200 OK", [])
        return [b"|".join(pieces)]

    body = b"ab\n\ncdefg\nhi"
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in (b"a", b"b\n\nc", b"defg\nhi", b""))
    expected = {
        "/read": body,
        "/read-1": body,
        "/reads": b"ab\n|\ncd|efg|\nhi",
        "/line": b"ab\n|\n|cdefg\n|hi",
        "/line2": b"ab|\n|\n|cd|ef|g\n|hi",
        "/lines": b"ab\n|\n|cdefg\n|hi",
        "/hint": body,
        "/iter": b"ab\n|\n|cdefg\n|hi",
        "/mixed": b"a|b\n|\nc|defg\n|hi||",
    }
    with Client(serve(application).address) as client:
        for path, want in expected.items():
            head = [f"POST {path} HTTP/1.1", "Host: a"]
            answer = client.ask([*head, f"Content-Length: {len(body)}"], body)
            assert answer.body == want, path
            answer = client.ask([*head, "Transfer-Encoding: chunked"], chunked)
            assert answer.body == want, path


def test_no_body_reads_as_none(serve):
    def application(environ, start_response):
        stream = environ["wsgi.input"]
        start_response("200 OK", [])
        return [repr([stream.read(), stream.read(5), stream.readline(), list(stream)]).encode()]

    with Client(serve(application).address) as client:
        for _ in range(2):
            assert client.ask(HELLO).body == b"[b'', b'', b'', []]"


def test_a_body_that_comes_slowly(serve):
    def application(environ, start_response):
        data = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [data]

    with Client(serve(application).address) as client:
        for framing, pieces in [
            ("Content-Length: 6", [b"a", b"bcd", b"ef"]),
            (
                "Transfer-Encoding: chunked",
                [b"3", b"\r", b"\nab", b"c\r\n3\r\ndef", b"\r\n0\r\n", b"\r\n"],
            ),
        ]:
            client.send(f"POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n".encode())
            for piece in pieces:
                gevent.sleep(0.005)
                client.send(piece)
            assert client.answer().body == b"abcdef"


def test_100_continue(serve):
    def application(environ, start_response):
        if environ["PATH_INFO"] == "/read":
            environ["wsgi.input"].read(1)
            environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [b"ok"]

    server = serve(application)
    head = ["POST /read HTTP/1.1", "Host: a", "Content-Length: 3", "Expect: 100-continue"]
    with Client(server.address) as client:
        for _ in range(2):
            assert client.ask(head).status == 100
            client.send(b"abc")
            assert client.answer().body == b"ok"
    with Client(server.address) as client:
        assert client.ask([head[0].replace("read", "x"), *head[1:]]).status == 200


@pytest.mark.parametrize("when", ["call", "iterate", "between"])
def test_an_error_of_the_application(serve, when, capsys):
    class Oops(Exception):
        pass

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/ok":
            start_response("200 OK", [])
            return [b"fine"]
        if when == "call":
            raise Oops("secret")
        start_response("200 OK", [("X", "y")])
        return parts()

    def parts():
        if when == "between":
            yield b"part"
        raise Oops("secret")

    server = serve(application)
    with Client(server.address) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: hidden=1\r\n\r\n")
        if when == "between":
            assert b"part" in client.rfile.read()
        else:
            answer = client.answer()
            assert (answer.status, answer.body) == (500, b"Internal Server Error")
            assert answer.fields["connection"] == "close"
            assert client.at_end()
    with Client(server.address) as client:
        assert client.ask(["GET /ok HTTP/1.1", "Host: a"]).body == b"fine"
    error = capsys.readouterr().err
    assert "Oops: secret" in error
    assert "127.0.0.1" in error
    assert "hidden=1" not in error


def test_exc_info_replaces_the_answer(serve):
    def application(environ, start_response):
        start_response("200 OK", [("A", "b")])
        try:
            raise ValueError("x")
        except ValueError:
            start_response("500 Oh", [("C", "d")], sys.exc_info())
        return [b"sorry"]

    with Client(serve(application).address) as client:
        answer = client.ask(HELLO)
        assert (answer.status, answer.body, answer.names[0]) == (500, b"sorry", "C")


def test_exc_info_is_raised_once_it_is_too_late(serve, capsys):
    def application(environ, start_response):
        write = start_response("200 OK", [])
        write(b"a")
        try:
            raise ValueError("too late")
        except ValueError:
            start_response("500 Oh", [], sys.exc_info())
        return [b"never"]

    with Client(serve(application).address) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.rfile.read().endswith(b"1\r\na\r\n")
    assert "ValueError: too late" in capsys.readouterr().err


def test_close_is_called_always(serve, capsys):
    closed = []

    class Body:
        def __init__(self, path):
            self.path = path

        def __iter__(self):
            yield b"a"
            if self.path == "/raise":
                raise ValueError
            if self.path == "/big":
                for _ in range(200):
                    yield b"x" * 100000

        def close(self):
            closed.append(self.path)

    def application(environ, start_response):
        start_response("200 OK", [])
        return Body(environ["PATH_INFO"])

    server = serve(application)
    with Client(server.address) as client:
        assert client.ask(["GET /fine HTTP/1.1", "Host: a"]).body == b"a"
    with Client(server.address) as client:
        client.send(b"GET /raise HTTP/1.1\r\nHost: a\r\n\r\n")
        client.rfile.read()
    with Client(server.address) as client:
        # The client goes away in the middle.
        client.send(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        client.rfile.read(100)
    for _ in range(6000):
        if len(closed) == 3:
            break
        gevent.sleep(0.005)
    assert closed == ["/fine", "/raise", "/big"]
    capsys.readouterr()


@pytest.mark.parametrize(
    "status, fields",
    [
        ("200 OK\r\nX: y", []),
        ("200 OK", [("A", "b\r\nC: d")]),
        ("200 OK", [("A\n", "b")]),
        ("200 OK", [("A", "\u20ac")]),
        ("200 OK", [(b"A", "b")]),
        (b"200 OK", []),
        ("no number", []),
    ],
)
def test_what_an_application_may_not_say(serve, status, fields, capsys):
    def application(environ, start_response):
        start_response(status, fields)
        return [b"never"]

    with Client(serve(application).address) as client:
        answer = client.ask(HELLO)
        assert answer.status == 500
        assert set(answer.fields) == {"content-type", "connection", "content-length", "date"}
    assert "Error" in capsys.readouterr().err


@pytest.mark.ours
def test_a_body_longer_than_said_is_cut(serve, capsys):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Length", "2")])
        return [b"abc"]

    with Client(serve(application).address) as client:
        assert client.ask(HELLO).body == b"ab"
        assert client.at_end()
    capsys.readouterr()


@pytest.mark.ours
def test_a_body_shorter_than_said_ends_the_connection(serve):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        return [b"abc"]

    with Client(serve(application).address) as client:
        assert client.ask(HELLO).body == b"abc"
        assert client.at_end()


def test_the_client_goes_away(serve):
    """A disconnected client is nobody's error."""

    def application(environ, start_response):
        start_response("200 OK", [])
        for _ in range(100):
            yield b"x" * 100000

    server = serve(application)
    for _ in range(3):
        with Client(server.address) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            client.rfile.read(10)
    server.log.wait(3)
    assert server.error_log.text == ""


def test_log(serve):
    server = serve(hello)
    with Client(server.address) as client:
        client.ask(["GET /x?y HTTP/1.1", "Host: a"])
        client.ask("GET /z HTTP/1.0")
    lines = server.log.wait(2)
    pattern = r'127\.0\.0\.1 - - \[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] "GET %s" 200 \d+ \d+\.\d{6}'
    assert re.fullmatch(pattern % r"/x\?y HTTP/1\.1", lines[0])
    assert re.fullmatch(pattern % r"/z HTTP/1\.0", lines[1])
    assert server.error_log.text == ""


def test_refusals_are_logged(serve):
    server = serve(hello)
    with Client(server.address) as client:
        client.send(b"GET / HTTP %s\r\n\r\n")
        assert client.answer().status == 400
        assert client.at_end()
    assert '"GET / HTTP %s" 400 - ' in server.log.wait(1)[0]
    assert "127.0.0.1" in server.error_log.wait(1)[0]
    assert "%s" in server.error_log.text


def test_loggers_and_nothing_as_logs(serve):
    class Logger:
        def __init__(self):
            self.said = []

        def log(self, level, message):
            self.said.append((level, message))

    log, error_log = Logger(), Logger()
    server = serve(hello, log=log, error_log=error_log)
    with Client(server.address) as client:
        client.ask(HELLO)
        client.send(b"bad\r\n\r\n")
        assert client.answer().status == 400
    for _ in range(6000):
        if len(log.said) == 2 and error_log.said:
            break
        gevent.sleep(0.005)
    assert [level for level, _ in log.said] == [20, 20]
    assert not log.said[0][1].endswith("\n")
    assert error_log.said[0][0] == 40
    server = serve(hello, log=None, error_log=None)
    with Client(server.address) as client:
        assert client.ask(HELLO).body == b"hello"


def test_a_pool_bounds_requests(serve):
    running = []
    most = []

    def application(environ, start_response):
        running.append(1)
        most.append(len(running))
        gevent.sleep(0.01)
        running.pop()
        start_response("200 OK", [])
        return [b"ok"]

    server = serve(application, spawn=Pool(3))

    def ask():
        with Client(server.address) as client:
            assert client.ask([*HELLO, "Connection: close"]).body == b"ok"

    jobs = [gevent.spawn(ask) for _ in range(12)]
    gevent.joinall(jobs, raise_error=True, timeout=20)
    assert len(most) == 12
    assert max(most) == 3


@pytest.mark.parametrize("spawn", [gevent.spawn_raw, pytest.param("raw", marks=pytest.mark.ours)])
def test_spawn_raw(serve, spawn):
    with Client(serve(hello, spawn=spawn).address) as client:
        assert client.ask(HELLO).body == b"hello"


def test_unix_socket(serve, tmp_path):
    from gevent import socket

    path = str(tmp_path / "s")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(5)
    seen = {}

    def application(environ, start_response):
        seen.update(environ)
        start_response("200 OK", [])
        return [b"ok"]

    server = serve(application, listener=listener)
    with Client(path) as client:
        assert client.ask(HELLO).body == b"ok"
    assert "REMOTE_ADDR" not in seen
    assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == ("", "")
    assert server.log.wait(1)[0].startswith("- - - [")


def test_stop_lets_requests_end(serve):
    def application(environ, start_response):
        entered.set()
        go_on.wait(30)
        start_response("200 OK", [])
        return [b"done"]

    entered, go_on = gevent.event.Event(), gevent.event.Event()
    server = serve(application, spawn=Pool(5))
    with Client(server.address) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert entered.wait(30)
        stopping = gevent.spawn(server.stop, timeout=30)
        gevent.sleep(0)
        go_on.set()
        assert client.answer().body == b"done"
        client.close()
        stopping.join(timeout=30)
        assert stopping.ready()


@pytest.mark.ours
def test_draining_says_so(serve):
    server = serve(hello)
    with Client(server.address) as busy, Client(server.address) as idle:
        assert "connection" not in busy.ask(HELLO).fields
        idle.ask(HELLO)
        server.close()
        assert busy.ask(HELLO).fields["connection"] == "close"
        assert busy.at_end()
        assert idle.at_end()


@pytest.mark.ours
@pytest.mark.parametrize("name", ["idle_timeout", "head_timeout"])
def test_timeouts(serve, name):
    server = serve(hello, attributes={name: 0.05})
    with Client(server.address) as client:
        if name == "head_timeout":
            client.send(b"GET / HTTP/1.1\r\nHost")
            assert client.answer().status == 408
        assert client.at_end()


@pytest.mark.ours
def test_limits(serve):
    server = serve(hello, attributes={"max_head": 200, "max_headers": 3, "max_body": 10})
    for extra, status in [
        (["A: " + "x" * 300], 431),
        (["A: b", "C: d", "E: f"], 431),
        (["Content-Length: 11"], 413),
        (["Content-Length: 10"], 200),
    ]:
        with Client(server.address) as client:
            assert client.ask([*HELLO, *extra], b"x" * 10).status == status


def test_request_line_limit_is_the_modules(serve, monkeypatch):
    monkeypatch.setattr(pywsgi, "MAX_REQUEST_LINE", 100)
    server = serve(hello)
    with Client(server.address) as client:
        assert client.ask(["GET /" + "x" * 50 + " HTTP/1.1", "Host: a"]).status == 200
        assert client.ask(["GET /" + "x" * 100 + " HTTP/1.1", "Host: a"]).status == 414


SMUGGLING = [
    (["Content-Length: 1", "Transfer-Encoding: chunked"], 400),
    (["Content-Length: 1", "Content-Length: 1"], 400),
    (["Content-Length: 1", "Content-Length: 2"], 400),
    (["Content-Length: +1"], 400),
    (["Content-Length : 1"], 400),
    (["Transfer-Encoding: gzip, chunked"], 501),
    (["Transfer-Encoding: chunked, gzip"], 400),
    (["Transfer-Encoding: xchunked"], 501),
    (["Transfer_Encoding: chunked"], 400),
    (["A: b\x00c"], 400),
    (["A: b\nC: d"], 400),
]


@pytest.mark.ours
@pytest.mark.parametrize("fields, status", SMUGGLING)
def test_smuggling(serve, fields, status):
    """Also with a handler class of the program's own."""
    with Client(serve(hello).address) as client:
        assert client.ask(["POST / HTTP/1.1", "Host: a", *fields], b"x").status == status
        assert client.at_end()


@pytest.mark.ours
def test_strictness_can_be_chosen():
    both = ["POST / HTTP/1.1", "Host: a", "Content-Length: 3", "Transfer-Encoding: chunked"]
    direct = [line for line in both if not line.startswith("Host")]
    folded = ["GET / HTTP/1.1", "A: b", " c"]
    expected = {
        "strict": (400, 400, 400),
        "tolerant": (400, 200, 200),
        "upstream": (200, 200, 200),
    }
    for mode, statuses in expected.items():
        settings = {"handler_class": Subclass, "attributes": {"http": mode}}
        with serving(hello, pywsgi.WSGIServer, **settings) as server:
            for head, status in zip((both, direct, folded), statuses):
                with Client(server.address) as client:
                    assert client.ask(head, b"0\r\n\r\n").status == status, mode


def test_many_connections(serve):
    def application(environ, start_response):
        gevent.sleep(0.001)
        start_response("200 OK", [])
        return [environ["QUERY_STRING"].encode()]

    server = serve(application, log=Log())

    def session(number):
        with Client(server.address) as client:
            for n in range(5):
                answer = client.ask([f"GET /?{number}.{n} HTTP/1.1", "Host: a"])
                assert answer.body == b"%d.%d" % (number, n)

    jobs = [gevent.spawn(session, number) for number in range(100)]
    gevent.joinall(jobs, raise_error=True, timeout=30)
    assert len(server.log.wait(500)) == 500
