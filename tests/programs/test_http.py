"""HTTP clients as they are, against `http.server` with greenlets for its threads."""

import http.server
import json
import os
import ssl
import threading
import urllib.request

import pytest

import gevent
from gevent import pool

DATA = os.path.join(os.path.dirname(__file__), "..", "python", "data")


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked, after as many milliseconds as the path ends in."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body):
        pause = int(self.path.rpartition("/")[2] or 0)
        if pause:
            gevent.sleep(pause / 1000)
        said = json.dumps({"path": self.path, "body": body.decode("latin1")}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True


@pytest.fixture(scope="module")
def url():
    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield "http://127.0.0.1:%d" % server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def tls_url():
    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(f"{DATA}/localhost.crt", f"{DATA}/localhost.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield "https://localhost:%d" % server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def all_at_once(call, count):
    greenlets = [gevent.spawn(call, n) for n in range(count)]
    gevent.joinall(greenlets, raise_error=True)
    return [greenlet.value for greenlet in greenlets]


def test_urllib_request(url, others):
    def get(n):
        with urllib.request.urlopen(f"{url}/{n}/20", data=b"x" * n or None, timeout=30) as answer:
            return json.load(answer)

    for n, answer in enumerate(all_at_once(get, 50)):
        assert answer == {"path": f"/{n}/20", "body": "x" * n}
    assert len(others) > 2


def test_requests(url, tls_url):
    requests = pytest.importorskip("requests")

    def session(n):
        with requests.Session() as session:
            for turn in range(5):
                answer = session.post(f"{url}/{n}/{turn}", data="y" * n, timeout=30)
                assert answer.json() == {"path": f"/{n}/{turn}", "body": "y" * n}
            answer = session.get(f"{tls_url}/{n}/1", verify=f"{DATA}/localhost.crt", timeout=30)
            return answer.json()["path"]

    assert all_at_once(session, 30) == [f"/{n}/1" for n in range(30)]
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(f"{url}/3000", timeout=0.05)
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(tls_url, timeout=30)


def test_urllib3_pool_after_kills(url):
    """Users of a pool of connections are killed at it; nobody gets the answer meant for them."""
    urllib3 = pytest.importorskip("urllib3")
    with urllib3.PoolManager(maxsize=60, block=True, timeout=30) as manager:

        def get(n):
            return manager.request("GET", f"{url}/{n}/5").json()["path"]

        asking = [gevent.spawn(get, n) for n in range(60)]
        gevent.sleep(0.02)
        for greenlet in asking[::7]:
            greenlet.kill()
        gevent.joinall(asking)
        for n, greenlet in enumerate(asking):
            if n % 7:
                assert greenlet.get() == f"/{n}/5"
        assert all_at_once(get, 20) == [f"/{n}/5" for n in range(20)]


def test_httpx(url, tls_url):
    httpx = pytest.importorskip("httpx")
    context = ssl.create_default_context(cafile=f"{DATA}/localhost.crt")
    with httpx.Client(timeout=30, verify=context) as client:

        def get(n):
            assert client.get(f"{tls_url}/{n}/1").json()["path"] == f"/{n}/1"
            return client.post(f"{url}/{n}/5", content=b"z" * n).json()["body"]

        assert all_at_once(get, 40) == ["z" * n for n in range(40)]
        with pytest.raises(httpx.ReadTimeout):
            client.get(f"{url}/3000", timeout=0.05)


def test_geventhttpclient(url):
    client = pytest.importorskip("geventhttpclient")
    http = client.HTTPClient.from_url(url, concurrency=10, network_timeout=30)

    def get(n):
        answer = http.get(f"/{n}/1")
        assert answer.status_code == 200
        return json.loads(bytes(answer.read()))["path"]

    assert all_at_once(get, 100) == [f"/{n}/1" for n in range(100)]
    http.close()


def test_crawler(url):
    """A thousand pages at once, each on a connection of its own."""

    def get(n):
        with urllib.request.urlopen(f"{url}/{n}/{n % 100}", timeout=60) as answer:
            return json.load(answer)["path"]

    crawlers = pool.Pool(1000)
    assert crawlers.map(get, range(1000)) == [f"/{n}/{n % 100}" for n in range(1000)]
