"""One measurement of a real program on one interpreter's gevent, whichever it is.

    bench_programs_work.py CASE SECONDS [busy]

Prints two numbers: how many a second, and how many a second of this process's processor time,
which other processes on the machine disturb less. Everything is patched, and the program's own code
is what a user of it writes. With ``busy``, a native thread of the same process computes in Python
all the while. The servers' addresses come by variables (tools/bench_programs.py).
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import ssl  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402
from gevent import socket  # noqa: E402
from gevent.server import StreamServer  # noqa: E402

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "python", "data")
CASES = {}


def case(function):
    """Registers a generator: it yields what each of its greenlets does again and again."""
    CASES[function.__name__] = function
    return function


@case
def redis_get():
    import redis

    pool = redis.ConnectionPool.from_url(os.environ["PROGRAMS_REDIS"])
    client = redis.Redis(connection_pool=pool)
    client.set("key", b"x" * 64)
    for _ in range(50):
        yield lambda: client.get("key")


@case
def psycopg2_query():
    import psycopg2
    from psycopg2 import extensions

    def wait(conn):
        while (state := conn.poll()) != extensions.POLL_OK:
            waiting = socket.wait_read if state == extensions.POLL_READ else socket.wait_write
            waiting(conn.fileno())

    extensions.set_wait_callback(wait)

    def user():
        conn = psycopg2.connect(os.environ["PROGRAMS_POSTGRES"])
        conn.autocommit = True
        cursor = conn.cursor()

        def query():
            cursor.execute("select 1")
            cursor.fetchone()

        return query

    for _ in range(50):
        yield user()


@case
def requests_get():
    import requests

    url = os.environ["PROGRAMS_HTTP"]
    for _ in range(20):
        session = requests.Session()
        yield lambda session=session: session.get(url)


@case
def geventhttpclient_get():
    from geventhttpclient import HTTPClient

    client = HTTPClient.from_url(os.environ["PROGRAMS_HTTP"], concurrency=20)
    for _ in range(20):
        yield lambda: client.get("/").read()


def echo(sock, _address):
    try:
        while data := sock.recv(65536):
            sock.sendall(data)
    except OSError:
        # The end of the measurement, in the middle of a handshake.
        pass


@case
def tls_echo():
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(f"{DATA}/localhost.crt", f"{DATA}/localhost.key")
    client_side = ssl.create_default_context(cafile=f"{DATA}/localhost.crt")
    server = StreamServer(("127.0.0.1", 0), echo, ssl_context=server_side)
    server.start()

    def user():
        plain = socket.create_connection(("127.0.0.1", server.server_port))
        sock = client_side.wrap_socket(plain, server_hostname="localhost")
        data = b"x" * 1024

        def turn():
            sock.sendall(data)
            sock.recv(65536)

        return turn

    for _ in range(20):
        yield user()


@case
def connections():
    server = StreamServer(("127.0.0.1", 0), echo, backlog=1024)
    server.start()
    address = ("127.0.0.1", server.server_port)

    def turn():
        with socket.create_connection(address) as sock:
            sock.sendall(b"hello")
            sock.recv(100)

    for _ in range(20):
        yield turn


@case
def spawns():
    for _ in range(4):
        yield lambda: subprocess.Popen(["/bin/true"]).wait()


@case
def spawns_with_output():
    for _ in range(4):
        yield lambda: subprocess.check_output(["/bin/echo", "x"])


def busy():
    while True:
        sum(range(1000))


def main():
    name, seconds = sys.argv[1], float(sys.argv[2])
    counts = []

    def user(turn, end):
        count = 0
        while time.monotonic() < end:
            turn()
            count += 1
        counts.append(count)

    turns = list(CASES[name]())
    for turn in turns:
        turn()
    if sys.argv[3:] == ["busy"]:
        monkey.get_original("_thread", "start_new_thread")(busy, ())
    began, computed = time.monotonic(), time.process_time()
    gevent.joinall([gevent.spawn(user, turn, began + seconds) for turn in turns], raise_error=True)
    took, computed = time.monotonic() - began, time.process_time() - computed
    print(sum(counts) / took, sum(counts) / computed, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
