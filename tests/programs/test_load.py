"""Locust, headless, against a server of ours; and gunicorn with its gevent worker."""

import csv
import json
import pathlib
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

import gevent

HERE = pathlib.Path(__file__).parent


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture
def site():
    from gevent.server import StreamServer

    page = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello"

    def serve(sock, _address):
        rest = b""
        while data := sock.recv(65536):
            rest += data
            asked = rest.count(b"\r\n\r\n")
            rest = rest.rpartition(b"\r\n\r\n")[2]
            sock.sendall(page * asked)

    server = StreamServer(("127.0.0.1", 0), serve, backlog=1024)
    server.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.stop()


@pytest.mark.parametrize("user", ["Plain", "Fast"])
def test_locust(user, site, tmp_path, full):
    pytest.importorskip("locust")
    command = [sys.executable, "-m", "locust", "-f", str(HERE / "locust_file.py"), user]
    command += ["--headless", "-u", "20", "-r", "20", "-t", "10s" if full else "3s"]
    command += ["-H", site, "--csv", str(tmp_path / "stats"), "--only-summary"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    rows = list(csv.DictReader((tmp_path / "stats_stats.csv").read_text().splitlines()))
    total = next(row for row in rows if row["Name"] == "Aggregated")
    assert int(total["Request Count"]) > 100
    assert int(total["Failure Count"]) == 0


def test_gunicorn(tmp_path):
    pytest.importorskip("gunicorn")
    (tmp_path / "site_app.py").write_text(
        "import json, time\n"
        "def app(environ, start_response):\n"
        "    time.sleep(0.05)\n"
        "    body = environ['wsgi.input'].read()\n"
        "    start_response('200 OK', [('Content-Length', str(len(body)))])\n"
        "    return [body]\n"
    )
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "-w", "2", "--preload"]
    command += ["-b", f"127.0.0.1:{port}", "--graceful-timeout", "5", "site_app:app"]
    with open(tmp_path / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:

        def post(n):
            data = json.dumps({"n": n}).encode()
            for _ in range(200):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", data, 30) as answer:
                        return json.load(answer)["n"]
                except ConnectionRefusedError:
                    gevent.sleep(0.05)
                except urllib.error.URLError as ex:
                    if not isinstance(ex.reason, ConnectionRefusedError):
                        raise
                    gevent.sleep(0.05)
            raise AssertionError((tmp_path / "log").read_text())

        assert post(0) == 0
        posts = [gevent.spawn(post, n) for n in range(100)]
        gevent.joinall(posts, raise_error=True)
        assert [g.value for g in posts] == list(range(100))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0, (tmp_path / "log").read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
