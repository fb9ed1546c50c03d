"""Random pipelines of requests, in random pieces, for an application that does all that one may.

Every answer has to be the right one, in its place, with the digest of what was read of its
request's body. The seed is part of a test's name; what one has found is in test_pywsgi_faults.py.
"""

import contextlib
import hashlib
import io
import pathlib
import random
import ssl
from urllib.parse import parse_qsl, urlencode

import gevent
import pytest
from gevent import pywsgi
from gevent.pool import Pool
from http_client import Client, serving
from pywsgi_ways import Subclass

pytestmark = pytest.mark.ours

DATA = pathlib.Path(__file__).parent / "data"
CONNECTIONS = 300
#: Of them at a time.
CLIENTS = 6

READ = {
    "nothing": lambda body: None,
    "all": lambda body: body.read(),
    "some": lambda body: body.read(7),
    "lines": lambda body: b"".join(body),
    "pieces": lambda body: b"".join(iter(lambda: body.read(1000), b"")),
}
FILE = b"0123456789" * 20000


class Application:
    """Answers as the query says. Its randomness is about waits alone."""

    def __init__(self, seed, path):
        self.random = random.Random(seed)
        self.path = path
        path.write_bytes(FILE)
        self.open = 0

    def __call__(self, environ, start_response):
        asked = dict(parse_qsl(environ["QUERY_STRING"]))
        got = READ[asked["read"]](environ["wsgi.input"])
        if self.random.random() < 0.2:
            gevent.sleep(0.001)
        body = content(asked)
        fields = [("X-Number", asked["number"]), ("X-Digest", digest(got))]
        if asked["length"] == "told":
            fields.append(("Content-Length", str(len(body))))
        write = start_response("200 OK", fields)
        how = asked["how"]
        if how == "list":
            return [body[:100], b"", body[100:]]
        if how == "write":
            write(body[:100])
            return [body[100:]]
        if how == "file":
            file = open(self.path, "rb")
            file.seek(len(FILE) - len(body))
            return environ.get("wsgi.file_wrapper", io.BufferedReader)(file)
        return self.Blocks(self, body, int(asked["block"]))

    class Blocks:
        """An iterable that counts who has not closed it."""

        def __init__(self, application, body, size):
            self.application = application
            self.body, self.size = body, size
            application.open += 1

        def __iter__(self):
            for at in range(0, len(self.body), self.size):
                yield self.body[at : at + self.size]
                if self.application.random.random() < 0.1:
                    gevent.sleep(0)

        def close(self):
            self.application.open -= 1


def digest(got):
    return "none" if got is None else hashlib.sha1(got).hexdigest()


def content(asked):
    size = int(asked["size"])
    if asked["how"] == "file":
        return FILE[len(FILE) - size :]
    return (asked["number"].encode() * (size + 1))[:size]


class Request:
    """What is sent, and what has to come back."""

    def __init__(self, rand, number):
        how = rand.choice(["list", "write", "file", "blocks", "blocks"])
        size = rand.choice([0, 1, 99, 5000, 20000, 100000, rand.randrange(3000)])
        asked = {
            "number": str(number),
            "how": how,
            "size": str(size),
            "block": str(max(1, size // rand.choice([1, 3, 30]))),
            "length": rand.choice(["told", "open", "open"]),
            "read": rand.choice(list(READ)),
        }
        body = rand.randbytes(rand.choice([0, 3, 50, 2000, 40000]))
        fields, framed = b"", b""
        self.method, framing = rand.choice(
            [("GET", ""), ("GET", ""), ("HEAD", ""), ("POST", "length"), ("PUT", "chunks")]
        )
        if framing == "length":
            fields, framed = b"Content-Length: %d\r\n" % len(body), body
        elif framing == "chunks":
            fields, framed = b"Transfer-Encoding: chunked\r\n", chunks(rand, body)
        else:
            body = b""
        head = "%s /?%s HTTP/1.1\r\nHost: a\r\n" % (self.method, urlencode(asked))
        self.bytes = head.encode() + fields + b"\r\n" + framed
        self.number = asked["number"]
        self.digest = digest(READ[asked["read"]](io.BytesIO(body)))
        self.body = b"" if self.method == "HEAD" else content(asked)

    def check(self, answer):
        assert answer.status == 200, self.bytes[:200]
        assert answer.fields["x-number"] == self.number
        assert answer.fields["x-digest"] == self.digest, self.bytes[:200]
        assert answer.body == self.body, self.bytes[:200]


def chunks(rand, body):
    framed = b""
    while body:
        size = rand.randrange(1, len(body) + 1)
        framed += b"%x%s\r\n%s\r\n" % (size, rand.choice([b"", b';a="b"']), body[:size])
        body = body[size:]
    return framed + b"0\r\n" + rand.choice([b"", b"T: v\r\n"]) + b"\r\n"


def send(client, rand, data, gone):
    with contextlib.suppress(OSError):
        while data:
            size = rand.choice([len(data), 1, 10, 500, 5000])
            client.send(data[:size])
            data = data[size:]
            if rand.random() < 0.02:
                gevent.sleep(0.001)
            if gone and rand.random() < 0.1:
                client.sock.shutdown(2)
                return


def one_client(rand, address, context):
    """A connection with a pipeline; some are gone before its end."""
    requests = [Request(rand, rand.randrange(10**9)) for _ in range(rand.choice([1, 2, 8]))]
    gone = rand.random() < 0.15
    with Client(address) as client:
        if context is not None:
            client.rfile.close()
            client.sock = context.wrap_socket(client.sock)
            client.rfile = client.sock.makefile("rb")
        data = b"".join(request.bytes for request in requests)
        sender = gevent.spawn(send, client, rand, data, gone)
        try:
            for request in requests:
                request.check(client.answer(request.method))
        except (OSError, EOFError, AssertionError, ValueError):
            if not gone:
                raise
        finally:
            sender.kill()


WAYS = {
    "stock": {},
    "subclass": {"handler_class": Subclass},
    "pool": {"spawn": 2},
    "tls": {"certfile": str(DATA / "localhost.crt"), "keyfile": str(DATA / "localhost.key")},
}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_every_answer_is_the_right_one(way, seed, tmp_path):
    application = Application(seed, tmp_path / "file")
    context = None
    if way == "tls":
        from gevent.ssl import SSLContext

        context = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    with serving(application, pywsgi.WSGIServer, log=None, **WAYS[way]) as server:
        clients = Pool(CLIENTS)
        running = [
            clients.spawn(one_client, random.Random(f"{seed} {n}"), server.address, context)
            for n in range(CONNECTIONS)
        ]
        gevent.joinall(running, timeout=40)
        for client in running:
            assert client.ready(), "a client waits for an answer"
            client.get()
        server.close()
        for _ in range(1000):
            if server.drained():
                break
            gevent.sleep(0.005)
        assert server.drained() and application.open == 0
