"""gunicorn in its three forms: its own two workers on this gevent, and ours. No request is lost."""

import os
import signal

import pytest
from http_client import Client
from http_load import Load, Process, free_port, write_application

pytest.importorskip("gunicorn", reason="gunicorn is not installed")
pytest.importorskip("packaging", reason="gunicorn's gevent worker needs packaging")
pytestmark = pytest.mark.ours

KINDS = ["gevent", "gevent_pywsgi", "gevent.gunicorn.Worker"]
OURS = "gevent.gunicorn.Worker"


@pytest.fixture
def folder(tmp_path):
    write_application(tmp_path)
    return tmp_path


class Gunicorn(Process):
    def __init__(self, folder, kind, *arguments, bind=None):
        port = free_port()
        self.address = ("127.0.0.1", port)
        bind = bind or f"127.0.0.1:{port}"
        command = ["-m", "gunicorn", "-k", kind, "-b", bind, "--no-control-socket"]
        super().__init__([*command, *arguments, "appmodule:app"], folder, HOME=str(folder))


@pytest.mark.parametrize("kind", KINDS)
def test_reload_and_stop_under_load(folder, kind):
    with Gunicorn(folder, kind, "-w", "2") as process:
        process.wait_for_port(process.address)
        load = Load(process.address)
        load.wait_for(lambda: len(load.processes) == 2)
        write_application(folder, version=2)
        process.send(signal.SIGHUP)
        load.wait_for(lambda: 2 in load.versions)
        load.wait_for(lambda: process.output.count("Worker exiting") == 2)
        load.forget()
        load.more()
        assert load.versions == {2}
        load.stop()
        assert load.failures == []
        with Client(process.address) as client:
            client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            process.wait_for_file(folder / "slow")
            process.send(signal.SIGTERM)
            assert client.answer().status == 200
        assert process.end() == 0


def test_max_requests(folder):
    with Gunicorn(folder, OURS, "--max-requests", "50") as process:
        process.wait_for_port(process.address)
        load = Load(process.address)
        load.wait_for(lambda: len(load.processes) >= 3)
        load.stop()
        assert load.failures == []
        assert "Autorestarting" in process.output


def test_limits_and_access_log(folder):
    arguments = ["--limit-request-line", "100", "--limit-request-fields", "5"]
    log = ["--access-logfile", "-", "--access-logformat", "%(h)s|%(r)s|%(s)s|%(B)s|%({x-a}i)s"]
    with Gunicorn(folder, OURS, *arguments, *log) as process:
        process.wait_for_port(process.address)
        with Client(process.address) as client:
            answer = client.ask(["GET /a%20b?c HTTP/1.1", "Host: a", "X-A: yes"])
            assert answer.status == 200
            size = len(answer.body)
        for head, status in [
            (["GET /" + "x" * 100 + " HTTP/1.1", "Host: a"], 414),
            (["GET / HTTP/1.1", "Host: a", *[f"A{n}: b" for n in range(6)]], 431),
        ]:
            with Client(process.address) as client:
                assert client.ask(head).status == status
        process.wait_for(rf"127\.0\.0\.1\|GET /a%20b\?c HTTP/1\.1\|200\|{size}\|yes")


@pytest.mark.parametrize("keepalive", [0, 1])
def test_keepalive(folder, keepalive):
    with Gunicorn(folder, OURS, "--keep-alive", str(keepalive)) as process:
        process.wait_for_port(process.address)
        with Client(process.address) as client:
            answer = client.ask(["GET / HTTP/1.1", "Host: a"])
            assert (answer.fields.get("connection") == "close") is (keepalive == 0)
            # With a limit of one second it comes soon, too.
            assert client.at_end()


def test_the_scheme_that_a_proxy_names(folder):
    folder.joinpath("appmodule.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [environ['wsgi.url_scheme'].encode()]\n"
    )
    for allowed, scheme in [("127.0.0.1", b"https"), ("10.0.0.1", b"http")]:
        with Gunicorn(folder, OURS, "--forwarded-allow-ips", allowed) as process:
            process.wait_for_port(process.address)
            with Client(process.address) as client:
                head = ["GET / HTTP/1.1", "Host: a", "X-Forwarded-Proto: https"]
                assert client.ask(head).body == scheme
                assert client.ask(head[:2]).body == b"http"


def test_errors_and_timeout(folder):
    folder.joinpath("appmodule.py").write_text(
        "import os, time\n"
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/block':\n"
        "        from gevent import monkey\n"
        "        monkey.get_original('time', 'sleep')(100)\n"
        "    if environ['PATH_INFO'] == '/fail':\n"
        "        raise ValueError('oops')\n"
        "    start_response('200 OK', [])\n"
        "    return [str(os.getpid()).encode()]\n"
    )
    errors = folder / "errors"
    with Gunicorn(folder, OURS, "--timeout", "5", "--error-logfile", str(errors)) as process:
        process.wait_for_port(process.address)
        with Client(process.address) as client:
            assert client.ask(["GET /fail?x=1 HTTP/1.1", "Host: a"]).status == 500
        process.wait_until(lambda: "ValueError: oops" in errors.read_text())
        assert r"[ERROR] Error handling request /fail?x=1" in errors.read_text()
        assert "oops" not in process.output
        with Client(process.address) as client:
            first = client.ask(["GET / HTTP/1.1", "Host: a"]).body
            client.send(b"GET /block HTTP/1.1\r\nHost: a\r\n\r\n")
            # gunicorn aborts a worker whose hub does not run: by SystemExit where that is.
            client.rfile.read()
        with Client(process.address) as client:
            assert client.ask(["GET / HTTP/1.1", "Host: a"]).body != first


def test_unix_socket(folder):
    path = str(folder / "s")
    with Gunicorn(folder, OURS, bind="unix:" + path) as process:
        process.wait_for_port(path)
        with Client(path) as client:
            assert client.ask(["GET / HTTP/1.1", "Host: a"]).status == 200
        process.send(signal.SIGTERM)
        assert process.end() == 0
    assert not os.path.exists(path)
