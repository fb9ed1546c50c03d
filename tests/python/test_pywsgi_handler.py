"""Handlers that programs subclass: the order of calls, and what they find in attributes."""

import pytest
from gevent import pywsgi
from http_client import Client, serving

METHODS = [
    "handle",
    "handle_one_request",
    "read_requestline",
    "read_request",
    "get_environ",
    "handle_one_response",
    "run_application",
    "start_response",
    "process_result",
    "write",
    "finalize_headers",
    "log_request",
    "format_request",
    "log_error",
    "handle_error",
]


def recording(calls):
    """A handler class that notes each call of a method, and how deep it is."""
    depth = []

    def noting(name):
        original = getattr(pywsgi.WSGIHandler, name)

        def method(self, *args, **kwargs):
            calls.append("  " * len(depth) + name)
            depth.append(name)
            try:
                return original(self, *args, **kwargs)
            finally:
                depth.pop()

        return method

    return type("Recording", (pywsgi.WSGIHandler,), {name: noting(name) for name in METHODS})


REQUEST = """\
  handle_one_request
    read_requestline
    read_request
    get_environ
    handle_one_response
      run_application
{}
      log_request
        format_request"""

END = """\
  handle_one_request
    read_requestline"""


def _calls(application, capsys=None):
    calls = []
    with serving(application, pywsgi.WSGIServer, handler_class=recording(calls)) as server:
        with Client(server.address) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            client.rfile.read()
        server.log.wait(1)
    return "\n".join(calls)


def expected(inside):
    return "handle\n" + REQUEST.format(inside)


def test_calls_for_a_list():
    def application(environ, start_response):
        start_response("200 OK", [])
        return [b"a", b"b"]

    inside = """\
        start_response
        process_result
          write
            finalize_headers
          write"""
    assert _calls(application) == expected(inside)


def test_calls_for_write():
    def application(environ, start_response):
        write = start_response("200 OK", [])
        write(b"a")
        return [b"b"]

    inside = """\
        start_response
        write
          finalize_headers
        process_result
          write"""
    assert _calls(application) == expected(inside)


def test_calls_for_an_error(capsys):
    def application(environ, start_response):
        raise ValueError

    inside = """\
      handle_error
        start_response
        write
          finalize_headers"""
    assert _calls(application) == expected(inside)
    capsys.readouterr()


def test_attributes():
    seen = {}

    class Handler(pywsgi.WSGIHandler):
        def get_environ(self):
            environ = super().get_environ()
            environ["my.socket"] = self.socket
            environ["RAW_URI"] = self.path
            seen["request"] = (
                self.command,
                self.path,
                self.request_version,
                self.requestline,
                self.client_address[0],
                self.content_length,
                self.headers.get("x-a"),
                self.headers.getheader("none", "default"),
                list(self.headers.items()),
                self.headers.typeheader,
            )
            return environ

        def log_request(self):
            seen["answer"] = (
                self.status,
                self.response_headers[0],
                self.headers_sent,
                self.response_length > 50,
                self.time_finish >= self.time_start > 0,
                self.environ["RAW_URI"],
                self.environ["my.socket"] is self.socket,
            )
            super().log_request()

    def application(environ, start_response):
        start_response("201 Made", [("A", "b")])
        return [environ["wsgi.input"].read()]

    with serving(application, pywsgi.WSGIServer, handler_class=Handler) as server:
        with Client(server.address) as client:
            head = ["PUT /a%20b?c HTTP/1.1", "Host: h", "X-A: y", "Content-Length: 2"]
            assert client.ask([*head, "Content-Type: t/u"], b"xy").body == b"xy"
        server.log.wait(1)
    assert seen["request"] == (
        "PUT",
        "/a%20b?c",
        "HTTP/1.1",
        "PUT /a%20b?c HTTP/1.1",
        "127.0.0.1",
        2,
        "y",
        "default",
        [("Host", "h"), ("X-A", "y"), ("Content-Length", "2"), ("Content-Type", "t/u")],
        "t/u",
    )
    assert seen["answer"] == (b"201 Made", (b"A", b"b"), True, True, True, "/a%20b?c", True)


def test_a_request_line_of_ones_own():
    class Handler(pywsgi.WSGIHandler):
        def read_requestline(self):
            data = self.rfile.read(5)
            if data == b"HELLO":
                self.socket.sendall(b"policy")
                return None
            return data + self.rfile.readline()

    def application(environ, start_response):
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    with serving(application, pywsgi.WSGIServer, handler_class=Handler) as server:
        with Client(server.address) as client:
            client.send(b"HELLO")
            assert client.rfile.read() == b"policy"
        with Client(server.address) as client:
            assert client.ask(["GET /path HTTP/1.1", "Host: a"]).body == b"/path"


def test_format_request_and_handle_error():
    class Handler(pywsgi.WSGIHandler):
        def format_request(self):
            return f"{self.requestline} {self.code}"

        def handle_error(self, t, v, tb):
            self.environ["seen"] = t
            assert issubclass(t, KeyError)
            self.close_connection = True
            self.start_response("503 Later", [("Content-Length", "0")])
            self.write(b"")

    def application(environ, start_response):
        raise KeyError("x")

    with serving(application, pywsgi.WSGIServer, handler_class=Handler) as server:
        with Client(server.address) as client:
            assert client.ask(["GET /x HTTP/1.1", "Host: a"]).status == 503
        assert server.log.wait(1) == ["GET /x HTTP/1.1 503"]


def test_finalize_headers():
    class Handler(pywsgi.WSGIHandler):
        def finalize_headers(self):
            self.response_headers = [h for h in self.response_headers if h[0] != b"Secret"]
            self.response_headers.append((b"Server", b"mine"))
            super().finalize_headers()

    def application(environ, start_response):
        start_response("200 OK", [("Secret", "x")])
        return [b"a"]

    with serving(application, pywsgi.WSGIServer, handler_class=Handler) as server:
        with Client(server.address) as client:
            names = client.ask(["GET / HTTP/1.1", "Host: a"]).names
    assert names == ["Server", "Date", "Content-Length"]


def test_a_handler_on_its_own():
    """As programs use it that accept by themselves."""
    from gevent import socket, spawn

    def application(environ, start_response):
        start_response("200 OK", [])
        return [b"ok"]

    server = pywsgi.WSGIServer(("127.0.0.1", 0), application, log=None)
    ours, theirs = socket.socketpair()
    job = spawn(pywsgi.WSGIHandler(ours, ("9.9.9.9", 9), server).handle)
    theirs.sendall(b"GET / HTTP/1.0\r\n\r\n")
    with theirs, theirs.makefile("rb") as rfile:
        assert rfile.read().endswith(b"\r\n\r\nok")
    job.join(timeout=30)
    assert job.successful()


def test_another_class_of_headers():
    class Handler(pywsgi.WSGIHandler):
        def MessageClass(self, *args):
            message = super().MessageClass(*args)
            message["X-Extra"] = "added"
            return message

    def application(environ, start_response):
        start_response("200 OK", [])
        return [(environ["HTTP_X_EXTRA"] + environ["HTTP_X_A"]).encode()]

    with serving(application, pywsgi.WSGIServer, handler_class=Handler) as server:
        with Client(server.address) as client:
            assert client.ask(["GET / HTTP/1.1", "Host: a", "X-A: b"]).body == b"addedb"


@pytest.mark.parametrize("name", ["SecureEnviron", "Environ"])
def test_environ_classes(name):
    def application(environ, start_response):
        start_response("200 OK", [])
        return [type(environ).__name__.encode()]

    settings = {"attributes": {"environ_class": getattr(pywsgi, name)}}
    with serving(application, pywsgi.WSGIServer, **settings) as server:
        with Client(server.address) as client:
            assert client.ask(["GET / HTTP/1.1", "Host: a"]).body == name.encode()
