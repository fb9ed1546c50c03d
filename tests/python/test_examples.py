"""The programs in ``examples/`` start and do what they say."""

import contextlib
import http.server
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(name, args):
    """Start an example on a free port; None if another program got that first."""
    port = free_port()
    child = subprocess.Popen([sys.executable, str(EXAMPLES / name), *args, str(port)])
    while child.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 20).close()
            return child, port
        except ConnectionRefusedError:
            time.sleep(0.05)
    return None


@contextlib.contextmanager
def server(name, *args):
    """A running example; yields a function that connects to it."""
    started = start(name, args) or start(name, args) or start(name, args)
    assert started, name + " does not start"
    child, port = started
    try:
        yield lambda: socket.create_connection(("127.0.0.1", port), 20)
    finally:
        child.terminate()
        child.wait(20)


def test_echo():
    with server("echo.py") as connect, connect() as conn:
        conn.sendall(b"there and back")
        assert conn.makefile("rb").read(14) == b"there and back"


def test_hello():
    with server("hello.py") as connect, connect() as conn:
        conn.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"Hello World" in conn.makefile("rb").read()


def test_chat():
    with server("chat.py") as connect, connect() as first:
        hears = first.makefile("r")
        time.sleep(0.1)
        with connect() as second:
            assert hears.readline() == "* 2 has come\n"
            second.sendall(b"hello\r\nbye")
        assert [hears.readline() for _ in range(3)] == ["2: hello\n", "2: bye\n", "* 2 has left\n"]


def test_wsgi():
    with server("wsgi.py") as connect, connect() as conn:
        conn.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = conn.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"Hello World")


def test_tls_echo(tmp_path):
    certificate, key = str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl here to make a certificate")
    context = ssl.create_default_context(cafile=certificate)
    with server("tls_echo.py", certificate, key) as connect, connect() as conn:
        with context.wrap_socket(conn, server_hostname="localhost") as secure:
            secure.sendall(b"in secret")
            assert secure.recv(9) == b"in secret"


PAGES = {
    "/": '<a href="one"> <a href="/two#x"> <a href="ftp://x/">',
    "/one": '<a href="/"> <a href="gone"> <a href="mailto:x">',
    "/two": '<a href="http://elsewhere.invalid/">',
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = PAGES.get(self.path, "no").encode()
        self.send_response(200 if self.path in PAGES else 404)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def site():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield "http://127.0.0.1:%d" % site.server_address[1]
        site.shutdown()
        thread.join()


def run(name, *args):
    command = [sys.executable, str(EXAMPLES / name), *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


def test_fetch(site):
    good = run("fetch.py", site + "/one", site + "/")
    assert good.returncode == 0, good.stderr
    assert [line.split(": ")[0] for line in good.stdout.splitlines()] == [site + "/one", site + "/"]
    bad = run("fetch.py", site + "/", site + "/gone")
    assert bad.returncode == 1
    assert "404" in bad.stderr
    assert "200" in bad.stdout


def test_crawler(site):
    done = run("crawler.py", site + "/", "3")
    assert done.returncode == 1
    assert sorted(done.stdout.split()[:3]) == [site + "/", site + "/one", site + "/two"]
    assert done.stdout.endswith("3 pages\n")
    assert done.stderr.startswith("broken: %s/gone" % site)
