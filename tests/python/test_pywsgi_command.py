"""`python -m gevent.pywsgi`: workers, reloading, stopping; no request is lost on the way."""

import os
import re
import signal

import pytest
from http_client import Client
from http_load import Load, Process, write_application

pytestmark = pytest.mark.ours


@pytest.fixture
def folder(tmp_path):
    write_application(tmp_path)
    return tmp_path


def serve(folder, *arguments, app="appmodule:app", bind="127.0.0.1:0"):
    return Process(["-m", "gevent.pywsgi", "-b", bind, *arguments, app], folder)


def address_of(process):
    found = process.wait_for(r"https?://127\.0\.0\.1:(\d+)")
    address = ("127.0.0.1", int(found[1]))
    process.wait_for_port(address)
    return address


def test_reload_and_stop_under_load(folder, loop_name):
    with serve(folder, "--workers", "2") as process:
        address = address_of(process)
        line = process.wait_for("gevent.pywsgi .*")[0]
        assert f"loop {loop_name}, 2 workers" in line
        load = Load(address)
        load.wait_for(lambda: len(load.processes) == 2)
        write_application(folder, version=2)
        process.send(signal.SIGHUP)
        load.wait_for(lambda: 2 in load.versions)
        load.wait_for(lambda: len(load.processes) == 4)
        # Every old worker is gone.
        load.more()
        load.forget()
        load.more()
        assert load.versions == {2}
        load.stop()
        assert load.failures == []
        with Client(address) as client:
            client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            process.wait_for_file(folder / "slow")
            process.send(signal.SIGTERM)
            answer = client.answer()
            assert answer.status == 200
        assert process.end() == 0


def test_a_bad_reload_leaves_what_runs(folder):
    with serve(folder) as process:
        address = address_of(process)
        load = Load(address, clients=2)
        load.more(20)
        folder.joinpath("appmodule.py").write_text("raise ImportError('half an edit')")
        process.send(signal.SIGHUP)
        process.wait_for("the reload is called off")
        load.more(20)
        load.stop()
        assert load.failures == []
        assert load.versions == {1}
        assert "half an edit" in process.output
        process.send(signal.SIGTERM)
        assert process.end() == 0


def test_workers_that_die_are_replaced(folder):
    with serve(folder, "--workers", "2") as process:
        address = address_of(process)
        load = Load(address, clients=4)
        load.wait_for(lambda: len(load.processes) == 2)
        os.kill(min(load.processes), signal.SIGKILL)
        process.wait_for(r"ended by signal 9; again in 0\.5 s")
        load.wait_for(lambda: len(load.processes) == 3)
        load.stop()
        process.send(signal.SIGINT)
        assert process.end() == 0


def test_an_application_that_does_not_load(folder):
    with serve(folder, app="appmodule:missing") as process:
        assert process.end() == 3
        assert "could not be loaded" in process.output
        assert "AttributeError" in process.output
    with serve(folder, app="nomodule:app") as process:
        assert process.end() == 3


def test_factories_and_unix_sockets(folder):
    path = str(folder / "s")
    with serve(folder, app="appmodule:create(version=7)", bind="unix:" + path) as process:
        process.wait_for_port(path)
        with Client(path) as client:
            assert client.ask(["GET / HTTP/1.1", "Host: a"]).body.split()[1] == b"7"
        # A second server does not steal it.
        with serve(folder, bind="unix:" + path) as other:
            assert other.end() == 1
        with Client(path) as client:
            assert client.ask(["GET / HTTP/1.1", "Host: a"]).status == 200
        process.send(signal.SIGTERM)
        assert process.end() == 0
    assert not os.path.exists(path)


def test_workers_come_and_go(folder):
    with serve(folder) as process:
        address = address_of(process)
        load = Load(address, clients=4)
        load.more(10)
        assert len(load.processes) == 1
        process.send(signal.SIGTTIN)
        load.wait_for(lambda: len(load.processes) == 2)
        load.stop()
        assert load.failures == []


def test_https_and_access_log(folder):
    import gevent.ssl

    here = os.path.join(os.path.dirname(__file__), "data")
    names = {n: os.path.join(here, n) for n in os.listdir(here)}
    certfile = next(p for n, p in names.items() if re.search(r"(cert|crt)[^/]*(pem|crt)?$", n))
    keyfile = next((p for n, p in names.items() if "key" in n), certfile)
    arguments = ["--certfile", certfile, "--keyfile", keyfile, "--access-log", "-"]
    with serve(folder, *arguments) as process:
        address = address_of(process)
        client = Client(address)
        context = gevent.ssl._create_unverified_context()
        client.sock = context.wrap_socket(client.sock)
        client.rfile = client.sock.makefile("rb")
        with client:
            assert client.ask(["GET /x HTTP/1.1", "Host: a"]).status == 200
        process.wait_for(r'127\.0\.0\.1 - - \[.*\] "GET /x HTTP/1\.1" 200 ')


@pytest.mark.parametrize(
    "arguments",
    [["--workers", "0"], ["--keyfile", "x"], ["--certfile", "/no/such/file"], ["--unknown"]],
)
def test_bad_arguments(folder, arguments):
    with serve(folder, *arguments) as process:
        assert process.end() == 2
        assert "usage:" in process.output


def test_a_taken_address(folder):
    from gevent import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        with serve(folder, bind="127.0.0.1:%d" % taken.getsockname()[1]) as process:
            assert process.end() == 1
            assert "Address already in use" in process.output
