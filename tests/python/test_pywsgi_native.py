"""The native server behind ``WSGIServer``: when it is used, and what only it does."""

import os
import pathlib
import re
import tempfile

import pytest

import gevent
from gevent import pywsgi, socket

pytestmark = pytest.mark.ours

TABLE = pathlib.Path(__file__).parents[2] / "crates" / "wsgi" / "tests" / "data" / "requests.txt"


class Serving:
    """A server for one test."""

    def __init__(self, application, **options):
        attributes = options.pop("attributes", {})
        cls = options.pop("cls", pywsgi.WSGIServer)
        options.setdefault("log", None)
        options.setdefault("error_log", None)
        self.server = cls(("127.0.0.1", 0), application, **options)
        for name, value in attributes.items():
            setattr(self.server, name, value)

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, *_args):
        self.server.stop()

    def connect(self):
        sock = socket.create_connection(self.server.address)
        sock.settimeout(30)
        return sock

    def talk(self, data, shut=False):
        """All that comes back until the server closes."""
        with self.connect() as sock:
            sock.sendall(data)
            if shut:
                sock.shutdown(socket.SHUT_WR)
            return the_rest(sock)


def until(sock, enough, data=b""):
    """What has come when *enough* is true of it."""
    while not enough(data):
        more = sock.recv(4096)
        assert more, data
        data += more
    return data


def the_rest(sock, data=b""):
    """All that comes until the peer closes."""
    return data + b"".join(iter(lambda: sock.recv(65536), b""))


def get(path="/", *fields, close=True):
    lines = [f"GET {path} HTTP/1.1", "Host: a", *fields]
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def show(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["\n".join(f"{k}={v}" for k, v in sorted(environ.items())).encode("latin-1")]


def body(answer):
    return answer.partition(b"\r\n\r\n")[2]


def test_it_is_used_unless_something_is_overridden():
    class Handler(pywsgi.WSGIHandler):
        def log_request(self):
            pass

    class Heeded(pywsgi.WSGIHandler):
        ApplicationError = ValueError

    class Server(pywsgi.WSGIServer):
        def get_environ(self):
            return super().get_environ()

    for options, native in [
        ({}, True),
        ({"handler_class": Heeded}, True),
        ({"handler_class": Handler}, False),
        ({"cls": Server}, False),
        ({"attributes": {"environ_class": pywsgi.SecureEnviron}}, False),
    ]:
        with Serving(show, **options) as serving:
            assert (serving.server._native is not None) is native, options
            assert serving.talk(get()).startswith(b"HTTP/1.1 200 OK")


def test_it_can_be_kept_out(monkeypatch):
    monkeypatch.setenv("GEVENT_PYWSGI_PATH", "python")
    with Serving(show) as serving:
        assert serving.server._native is None


def test_the_environ():
    with Serving(show, environ={"x.mine": "1"}) as serving:
        sent = get("/a%20b/%C3%A4?q=%20", "X-Y: 1", "X-Y: 2", "Cookie: a", "Cookie: b", "X_Z: no")
        lines = body(serving.talk(sent)).decode("latin-1").split("\n")
        seen = dict(line.split("=", 1) for line in lines)
    assert seen["PATH_INFO"] == "/a b/\xc3\xa4" and seen["QUERY_STRING"] == "q=%20"
    assert seen["HTTP_X_Y"] == "1,2" and seen["HTTP_COOKIE"] == "a; b"
    assert "HTTP_X_Z" not in seen and seen["x.mine"] == "1"
    assert seen["REMOTE_ADDR"] == "127.0.0.1" and seen["REMOTE_PORT"].isdigit()
    assert seen["SERVER_PROTOCOL"] == "HTTP/1.1" and seen["REQUEST_METHOD"] == "GET"
    assert seen["wsgi.input_terminated"] == "True"


def test_a_block_of_fields_that_comes_again_is_not_shared():
    environs = []

    def application(environ, start_response):
        environs.append(dict(environ))
        environ["HTTP_X_A"] = environ["x.spoilt"] = "spoilt"
        del environ["SERVER_NAME"]
        start_response("200 OK", [])
        return [b""]

    with Serving(application) as serving:
        for i in range(6):
            serving.talk(get(f"/{i}", "X-A: 1"))
        serving.server.environ["x.late"] = "yes"
        serving.talk(get("/6", "X-A: 1"))
    assert [e["PATH_INFO"] for e in environs] == [f"/{i}" for i in range(7)]
    assert all(e["HTTP_X_A"] == "1" and "SERVER_NAME" in e for e in environs)
    assert ["x.late" in e for e in environs] == [False] * 6 + [True]
    assert all("x.spoilt" not in e for e in environs)


def test_each_request_has_a_greenlet_of_its_own_and_a_pipeline_one():
    seen = []

    def application(environ, start_response):
        seen.append(gevent.getcurrent())
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    with Serving(application) as serving, serving.connect() as sock:
        for _ in range(2):
            sock.sendall(get(close=False) * 2)
            data = b""
            while data.count(b"\r\n\r\nok") < 2:
                data += sock.recv(4096)
    assert seen[0] is seen[1] and seen[2] is seen[3] and seen[0] is not seen[2]
    assert all(isinstance(g, gevent.Greenlet) for g in seen)


def test_a_wait_in_a_pipeline_does_not_hold_the_answer_before_it():
    def application(environ, start_response):
        if environ["PATH_INFO"] == "/wait":
            go.wait()
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    go = gevent.event.Event()
    with Serving(application) as serving, serving.connect() as sock:
        sock.sendall(get("/first", close=False) + get("/wait"))
        data = until(sock, lambda data: data.endswith(b"/first"))
        go.set()
        data = the_rest(sock, data)
    assert data.endswith(b"/wait")


def test_a_stream_reaches_the_client_while_the_application_waits():
    def application(environ, start_response):
        start_response("200 OK", [])
        for piece in (b"one", b"two"):
            yield piece
            go.wait()

    go = gevent.event.Event()
    with Serving(application) as serving, serving.connect() as sock:
        sock.sendall(get())
        data = until(sock, lambda data: data.endswith(b"3\r\none\r\n"))
        go.set()
        data = the_rest(sock, data)
    assert data.endswith(b"3\r\ntwo\r\n0\r\n\r\n")


@pytest.mark.parametrize("length", [None, 5])
def test_file_wrapper(length):
    def application(environ, start_response):
        file = tempfile.TemporaryFile()
        file.write(b"0123456789" * 30000)
        file.seek(10)
        files.append(file)
        headers = [] if length is None else [("Content-Length", str(length))]
        start_response("200 OK", headers)
        return environ["wsgi.file_wrapper"](file)

    files = []
    with Serving(application) as serving:
        answer = serving.talk(get())
        size = 299990 if length is None else length
        assert f"Content-Length: {size}\r\n".encode() in answer
        assert body(answer) == (b"0123456789" * 30000)[10:][:size]
        assert body(serving.talk(get().replace(b"GET", b"HEAD"))) == b""
    assert all(file.closed for file in files)


def test_file_wrapper_of_something_else():
    import io

    class Text(io.BytesIO):
        pass

    def application(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](Text(b"x" * 20000), 8000)

    with Serving(application) as serving:
        answer = serving.talk(get().replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert body(answer) == b"x" * 20000


def test_head_and_lengths():
    def application(environ, start_response):
        kind = environ["PATH_INFO"]
        headers = [("Content-Length", "3")] if kind != "/free" else []
        start_response("200 OK", headers)
        return {"/long": [b"abcd"], "/short": [b"ab"], "/free": [b"abc"]}[kind]

    with Serving(application) as serving:
        assert body(serving.talk(get("/free").replace(b"GET", b"HEAD"))) == b""
        assert body(serving.talk(get("/free"))) == b"abc"
        assert body(serving.talk(get("/short", close=False))) == b"ab"
        hub = gevent.get_hub()
        quiet, hub.handle_error = hub.handle_error, lambda *_: None
        try:
            assert body(serving.talk(get("/long", close=False))) == b"abc"
        finally:
            hub.handle_error = quiet


def test_an_upgrade_is_handed_over_with_what_came_behind_it():
    def application(environ, start_response):
        write = start_response("101 Switching Protocols", [("Upgrade", "x")])
        write(b"")
        assert environ["wsgi.input_terminated"] is False
        line = environ["wsgi.input"].readline()
        write(line.upper())
        return []

    with Serving(application) as serving:
        sent = get("/", "Connection: Upgrade", "Upgrade: x", close=False) + b"hello\n"
        assert body(serving.talk(sent)).endswith(b"HELLO\n")


def test_many_connections_come_and_go():
    with Serving(show) as serving:
        core = serving.server._native
        socks = [serving.connect() for _ in range(200)]
        for sock in socks:
            sock.sendall(get(close=False))
        for sock in socks:
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        assert core.connections == 200 and core.counts == (200, 200)
        for sock in socks:
            sock.close()
        for _ in range(1000):
            if not core.connections:
                break
            gevent.sleep(0.005)
        assert core.connections == 0


# TLS by the server's own session.

CERTIFICATE = str(pathlib.Path(__file__).parent / "data" / "localhost.crt")
KEY = str(pathlib.Path(__file__).parent / "data" / "localhost.key")


def encrypted(serving, data=None):
    import gevent.ssl

    context = gevent.ssl.SSLContext(gevent.ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = gevent.ssl.CERT_NONE
    sock = context.wrap_socket(serving.connect())
    if data is None:
        return sock
    with sock:
        sock.sendall(data)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def test_tls():
    def application(environ, start_response):
        assert environ["wsgi.url_scheme"] == "https"
        body = environ["wsgi.input"].read()
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/stream":
            return (b"%d;" % i for i in range(1000))
        return [b"x" * 300000 if environ["PATH_INFO"] == "/big" else body]

    with Serving(application, certfile=CERTIFICATE, keyfile=KEY) as serving:
        assert serving.server._native is not None and serving.server._native.accepting
        post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"y" * 200000
        answer = encrypted(serving, post + get("/big", close=False) + get("/stream"))
        assert answer.count(b"HTTP/1.1 200 OK") == 3
        assert answer.count(b"y") >= 200000 and answer.count(b"x" * 300000) == 1
        assert answer.endswith(b"0\r\n\r\n")
        assert serving.talk(b"GET / HTTP/1.0\r\n\r\n") != b"", "an alert"
        with encrypted(serving) as sock:
            for _ in range(3):
                sock.sendall(get(close=False))
                assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        serving.server.reload_certificates()
        assert encrypted(serving, get()).startswith(b"HTTP/1.1 200")


def test_tls_of_a_certificate_that_changes(tmp_path):
    import shutil

    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    shutil.copy(CERTIFICATE, certificate)
    shutil.copy(KEY, key)
    with Serving(show, certfile=certificate, keyfile=key) as serving:
        certificate.write_text("nonsense")
        with pytest.raises(OSError):
            serving.server.reload_certificates()
        assert encrypted(serving, get()).startswith(b"HTTP/1.1 200")


def test_an_upgrade_under_tls():
    def application(environ, start_response):
        write = start_response("101 Switching Protocols", [("Upgrade", "x")])
        write(b"")
        write(environ["wsgi.input"].readline().upper())
        return []

    with Serving(application, certfile=CERTIFICATE, keyfile=KEY) as serving:
        sent = get("/", "Connection: Upgrade", "Upgrade: x", close=False) + b"hello\n"
        assert body(encrypted(serving, sent)).endswith(b"HELLO\n")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_openssl_serves_what_rustls_cannot(monkeypatch):
    monkeypatch.setenv("GEVENT_PYWSGI_TLS", "openssl")
    with Serving(show, certfile=CERTIFICATE, keyfile=KEY) as serving:
        assert serving.server._native is None
        assert encrypted(serving, get()).startswith(b"HTTP/1.1 200")


def unescape(text):
    def one(match):
        if match[1]:
            return unescape(match[2]) * int(match[3])
        if match[4]:
            return chr(int(match[4], 16))
        return {"r": "\r", "n": "\n", "t": "\t"}.get(match[5], match[5])

    return re.sub(r"(\{([^{}]*)\*(\d+)\})|\\x(..)|\\(.)", one, text)


def table():
    for number, line in enumerate(TABLE.read_text().splitlines(), 1):
        if line and not line.startswith("#"):
            data = line[12:].split("\t")[0]
            yield number, line[:12].strip(), unescape(data).encode("latin-1")


@pytest.mark.skipif(not TABLE.exists(), reason="the table is in the source tree")
@pytest.mark.parametrize("path", ["native", "python"])
def test_the_table_of_requests(path, monkeypatch):
    def application(environ, start_response):
        environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", "0")])
        return []

    monkeypatch.setenv("GEVENT_PYWSGI_PATH", path)
    wrong = []
    rows = list(table())
    assert len(rows) > 300
    with Serving(application, attributes={"max_body": 1048576}) as serving:
        hub = gevent.get_hub()
        quiet, hub.handle_error = hub.handle_error, lambda *_: None
        try:
            for number, answers, data in rows:
                if path == "python" and (b"CONNECT" in data[:8] or b"Upgrade" in data):
                    # There the application reads the connection itself.
                    continue
                got = serving.talk(data, shut=True)
                seen = re.findall(rb"HTTP/1\.1 (\d+) ", got)
                seen = [s for s in seen if s != b"100"]
                # A body that was cut off fails in the application, as upstream's does.
                want = [b"500"] if answers == "wait" else answers.encode().split(b",")
                if seen != want:
                    wrong.append((number, seen, want, data[:80]))
        finally:
            hub.handle_error = quiet
    assert not wrong, "\n".join(map(str, wrong))


def test_descriptors_do_not_leak():
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    with Serving(show) as serving:
        for _ in range(50):
            serving.talk(get())
            serving.talk(b"NONSENSE\r\n\r\n")
    for _ in range(400):
        gevent.sleep(0.01)
        if not serving.server._native.connections:
            break
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_pool_does_what_it_was_told():
    from gevent.greenlet import Greenlet
    from gevent.pool import Pool

    spawned = []

    class Counting(Pool):
        def spawn(self, *args, **kwargs):
            spawned.append(args)
            return super().spawn(*args, **kwargs)

    class Mine(Greenlet):
        pass

    def application(environ, start_response):
        current = gevent.getcurrent()
        start_response("200 OK", [])
        return [f"{type(current).__name__} {current in pool} {len(pool)}".encode()]

    for pool, expected in [
        (Pool(2), b"Greenlet True 1"),
        (Pool(2, greenlet_class=Mine), b"Mine True 1"),
        (Counting(2), b"Greenlet True 1"),
        (Pool(), b"Greenlet True 1"),
    ]:
        with Serving(application, spawn=pool) as serving:
            assert [body(serving.talk(get())) for _ in range(5)] == [expected] * 5
        pool.join(timeout=30)
        assert not len(pool)
    assert len(spawned) == 5


def test_stopped_servers_do_not_count_and_hundreds_serve_at_once():
    def application(_environ, start_response):
        start_response("200 OK", [])
        return [b"ok"]

    kept = []
    with Serving(application) as serving:
        for _ in range(4200):
            one = pywsgi.WSGIServer(("127.0.0.1", 0), application, log=None)
            one.start()
            one.stop()
            kept.append(one)
        for one in kept[:200]:
            one.set_listener(("127.0.0.1", 0))
            one.start()
        request = b"GET / HTTP/1.0\r\n\r\n"
        assert serving.talk(request).endswith(b"ok")
        with socket.create_connection(kept[199].address) as sock:
            sock.sendall(request)
            assert the_rest(sock).endswith(b"ok")
        for one in kept[:200]:
            one.stop()
