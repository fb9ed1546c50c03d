"""What a fault is put under: small programs over every part, which check each byte that they get.

Each function here is one round of work. It ends well, or with an exception that says what failed;
data that is not what was sent is a `Wrong`, which no fault excuses. Everything a round makes it
closes, whatever happens. Imported after `monkey.patch_all()`, so that the standard library's own
clients and `subprocess` are the patched ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import pathlib
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import urllib.request

import gevent
import gevent.event
import gevent.fileobject
import gevent.lock
import gevent.pool
import gevent.pywsgi
import gevent.queue
import gevent.select
import gevent.server
import gevent.threadpool

DATA = pathlib.Path(__file__).resolve().parents[2] / "tests" / "python" / "data"
#: More than one read takes, and no power of two.
BODY = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(300)) + b"end"
#: What may go through one byte at a time.
SHORT = BODY[:399]


class Wrong(BaseException):
    """Data that is not what was sent, or an outcome that no fault explains."""


def same(got, expected, where):
    if got != expected:
        raise Wrong(f"{where}: {len(got)} bytes {got[:40]!r} instead of {len(expected)}")


def exactly(receive, count):
    parts = []
    while count:
        data = receive(count)
        if not data:
            raise ConnectionError("the connection ended")
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


def echo_handler(conn, _address):
    with conn:
        while data := conn.recv(4096):
            conn.sendall(data)


@contextlib.contextmanager
def started(server):
    try:
        server.start()
        yield server
    finally:
        server.stop(timeout=0)


def echo():
    """A StreamServer that sends back what it gets, and three clients at once."""

    def client(number):
        with socket.create_connection(server.address) as conn:
            conn.sendall(b"%d" % number + SHORT)
            same(exactly(conn.recv, 1 + len(SHORT)), b"%d" % number + SHORT, "echo")
            conn.shutdown(socket.SHUT_WR)
            same(conn.recv(10), b"", "echo's end")

    with started(gevent.server.StreamServer(("127.0.0.1", 0), echo_handler)) as server:
        clients = [gevent.spawn(client, n) for n in range(3)]
        try:
            gevent.joinall(clients, raise_error=True)
        finally:
            gevent.killall(clients)


def pair():
    """Two ends of a socket pair, `makefile`, `recv_into` and an end that closes."""
    one, other = socket.socketpair()
    with one, other:

        def send():
            try:
                one.sendall(SHORT)
            except BaseException:
                one.close()
                raise

        sender = gevent.spawn(send)
        buffer = bytearray(len(SHORT))
        view = memoryview(buffer)
        try:
            while view:
                count = other.recv_into(view)
                if not count:
                    raise ConnectionError("the connection ended")
                view = view[count:]
            sender.get()
        finally:
            sender.kill()
        same(bytes(buffer), SHORT, "recv_into")
        with one.makefile("wb") as out, other.makefile("rb") as into:
            out.write(b"line\n" * 3)
            out.flush()
            same(into.readline() + into.readline(), b"line\nline\n", "readline")
        one.close()
        same(other.recv(1), b"", "the end")


def datagrams():
    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        getter = gevent.spawn(one.recvfrom, 2000)
        try:
            gevent.sleep(0)
            two.sendto(SHORT, one.getsockname())
            data, peer = getter.get()
        finally:
            getter.kill()
        same(data, SHORT, "datagram")
        same(peer, two.getsockname(), "peer")


class Handler(gevent.pywsgi.WSGIHandler):
    """Overrides something, so that the server takes the way with a greenlet a connection."""

    def get_environ(self):
        return super().get_environ()


class Quiet:
    """Takes a server's error log."""

    def write(self, text):
        pass

    def writelines(self, lines):
        pass

    def flush(self):
        pass


def application(environ, start_response):
    got = environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/file":
        start_response("200 OK", [("Content-Length", str(len(BODY)))])
        file = tempfile.TemporaryFile()  # noqa: SIM115 (the server closes it)
        file.write(BODY)
        file.seek(0)
        wrap = environ.get("wsgi.file_wrapper") or (lambda file: iter(file.read, b""))
        return wrap(file)
    if environ["PATH_INFO"] == "/chunks":
        start_response("200 OK", [])
        return [got[:100], got[100:], b"."]
    start_response("200 OK", [("Content-Length", str(len(got)))])
    return [got]


class Server(gevent.pywsgi.WSGIServer):
    #: Nothing of it is to outlive its `stop`.
    idle_grace = 0


def served(**settings):
    server = Server(("127.0.0.1", 0), application, log=None, error_log=Quiet(), **settings)
    return started(server)


def requests(server):
    """An http.client that keeps its connection: bodies with a length, in chunks, from a file."""
    with contextlib.closing(http.client.HTTPConnection(*server.address)) as client:
        for method, path, body, expected in (
            ("POST", "/", SHORT, SHORT),
            ("POST", "/chunks", iter([SHORT[:50], SHORT[50:]]), SHORT + b"."),
            ("GET", "/file", None, BODY),
        ):
            client.request(method, path, body, encode_chunked=True)
            answer = client.getresponse()
            got = answer.read()
            if answer.status == 200:
                same(got, expected, path)
            elif answer.status < 500:
                raise Wrong(f"{path}: status {answer.status}")
            else:
                raise ConnectionError(f"status {answer.status}")


def wsgi():
    """The HTTP server on its own way."""
    with served() as server:
        requests(server)


def wsgi_handler():
    """The HTTP server with a handler class of the user's."""
    with served(handler_class=Handler) as server:
        requests(server)


def wsgi_tls():
    """The HTTP server over TLS, where Rust does the encryption."""
    files = {"certfile": str(DATA / "localhost.crt"), "keyfile": str(DATA / "localhost.key")}
    with served(**files) as server:
        client = http.client.HTTPSConnection(*server.address, context=client_context())
        with contextlib.closing(client):
            client.request("POST", "/", SHORT)
            answer = client.getresponse()
            got = answer.read()
            if answer.status != 200:
                raise ConnectionError(f"status {answer.status}")
            same(got, SHORT, "https")


def chat(environ, start_response):
    ws = environ["wsgi.websocket"]
    while (message := ws.receive()) is not None:
        ws.send(message)
    return []


def websocket():
    """A message through a WebSocket and back, and both Close frames."""
    from gevent.websocket import WebSocketServer

    server = WebSocketServer(("127.0.0.1", 0), chat, log=None, error_log=Quiet())
    with started(server), socket.create_connection(server.address) as conn:
        conn.sendall(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += exactly(conn.recv, 1)
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(head.decode("latin-1"))
        # A mask of zeros changes nothing.
        conn.sendall(b"\x82\xfe" + struct.pack("!HI", len(SHORT), 0) + SHORT)
        same(exactly(conn.recv, 4), b"\x82\x7e" + struct.pack("!H", len(SHORT)), "frame")
        same(exactly(conn.recv, len(SHORT)), SHORT, "message")
        conn.sendall(b"\x88\x82\0\0\0\0\x03\xe8")
        same(exactly(conn.recv, 4), b"\x88\x02\x03\xe8", "close")


def urllib_client():
    with served() as server:
        url = "http://{}:{}/".format(*server.address)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, SHORT) as answer:
            same(answer.read(), SHORT, "urllib")


def client_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(DATA / "localhost.crt")
    context.check_hostname = False
    return context


def tls():
    """Python's TLS on both ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(DATA / "localhost.crt", DATA / "localhost.key")
    server = gevent.server.StreamServer(("127.0.0.1", 0), echo_handler, ssl_context=context)
    with started(server):
        plain = socket.create_connection(server.address)
        with plain, client_context().wrap_socket(plain) as conn:
            conn.sendall(SHORT)
            same(exactly(conn.recv, len(SHORT)), SHORT, "tls")


def processes():
    """A child through which data goes, and one that only has a status."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            same(child.communicate(SHORT)[0], SHORT, "cat")
        except BaseException:
            child.kill()
            raise
        same([child.returncode], [0], "cat's status")
    status = subprocess.call(["sh", "-c", "exit 3"])
    if status != 3:
        raise Wrong(f"a status of {status} instead of 3")


def files():
    """Files by the loop, and a pipe."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")
        with gevent.fileobject.FileObjectThread(path, "wb") as out:
            out.write(BODY)
        with gevent.fileobject.FileObject(path, "rb") as into:
            same(into.read(), BODY, "file")
    read_end, write_end = os.pipe()
    with contextlib.ExitStack() as stack:
        try:
            reader = stack.enter_context(gevent.fileobject.FileObjectPosix(read_end, "rb"))
        except BaseException:
            os.close(read_end)
            os.close(write_end)
            raise
        try:
            writer = stack.enter_context(gevent.fileobject.FileObjectPosix(write_end, "wb", 0))
        except BaseException:
            os.close(write_end)
            raise

        def send():
            rest = memoryview(SHORT)
            try:
                while rest:
                    rest = rest[writer.write(rest) :]
            finally:
                writer.close()

        sender = gevent.spawn(send)
        try:
            same(reader.read(), SHORT, "pipe")
            sender.get()
        finally:
            sender.kill()


def dns():
    """The resolver, asking a server of ours."""
    from gevent.resolver.native import Resolver

    def serve():
        while True:
            query, peer = udp.recvfrom(2000)
            end = query.index(b"\0", 12) + 5
            kind = struct.unpack("!H", query[end - 4 : end - 2])[0]
            answer = query[12:end][:-4] + struct.pack("!HHIH", 1, 1, 60, 4) + b"\xc0\0\2\7"
            answers = [answer] if kind == 1 else []
            head = query[:2] + struct.pack("!HHHHH", 0x8180, 1, len(answers), 0, 0)
            try:
                udp.sendto(head + query[12:end] + b"".join(answers), peer)
            except OSError:
                pass  # It asks again.

    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        server = gevent.spawn(serve)
        port = udp.getsockname()[1]
        resolver = Resolver(servers=["127.0.0.1"], udp_port=port, tcp_port=port, timeout=0.5)
        try:
            got = resolver.getaddrinfo("name.test", 80, socket.AF_INET, socket.SOCK_STREAM)
            same([info[4] for info in got], [("192.0.2.7", 80)], "dns")
        finally:
            resolver.close()
            server.kill()


def threads():
    """The pool of native threads, a thread of the pool that runs a hub, and a patched thread."""
    pool = gevent.threadpool.ThreadPool(2)
    try:
        same(pool.map(abs, [-1, -2, -3]), [1, 2, 3], "threadpool")
        same(pool.apply(lambda: [gevent.spawn(abs, -n).get() for n in range(3)]), [0, 1, 2], "hubs")
    finally:
        pool.kill()
    got = []
    thread = threading.Thread(target=got.append, args=(1,))
    thread.start()
    thread.join()
    same(got, [1], "thread")


def greenlets():
    """Pools, queues, events, locks, time limits: what needs no descriptor."""
    pool = gevent.pool.Pool(3)
    same(list(pool.imap(abs, range(-5, 0))), [5, 4, 3, 2, 1], "imap")
    queue = gevent.queue.Queue(1)
    putter = gevent.spawn(lambda: [queue.put(n) for n in range(5)])
    same([queue.get() for _ in range(5)], list(range(5)), "queue")
    putter.get()
    event, lock = gevent.event.Event(), gevent.lock.Semaphore(0)
    waiting = [gevent.spawn(event.wait), gevent.spawn(lock.acquire), gevent.spawn(gevent.sleep, 60)]
    gevent.sleep(0)
    event.set()
    lock.release()
    same([g.get() for g in waiting[:2]], [True, True], "waits")
    waiting[2].kill()
    with gevent.Timeout(0.001, False):
        gevent.sleep(60)
        raise Wrong("a time limit that did not end the wait")
    result = gevent.spawn_later(0.001, abs, -3).get()
    same([result], [3], "spawn_later")


def selects():
    """select, poll, and the watchers of the loop."""
    one, other = socket.socketpair()
    with one, other:
        one.send(b"x")
        same(gevent.select.select([other], [], [], 20)[0], [other], "select")
        poll = gevent.select.poll()
        poll.register(other, gevent.select.POLLIN)
        same(poll.poll(20000), [(other.fileno(), gevent.select.POLLIN)], "poll")
        watcher = gevent.get_hub().loop.io(other.fileno(), 1)
        try:
            gevent.get_hub().wait(watcher)
        finally:
            watcher.close()


def signals():
    """A signal of the process, through the loop."""
    told = gevent.event.Event()
    handler = gevent.signal_handler(signal.SIGUSR2, told.set)
    try:
        os.kill(os.getpid(), signal.SIGUSR2)
        if not told.wait(25):
            raise Wrong("a signal that nobody was told of")
    finally:
        handler.cancel()


def forks():
    """A child of os.fork, which uses its hub."""
    parent = os.getpid()
    try:
        pid = os.fork()
    except BaseException:
        if os.getpid() != parent:
            # What failed is the child's hub. Here it must end, or it would do the parent's work.
            os._exit(9)
        raise
    if not pid:
        code = 1
        try:
            code = 7 if gevent.spawn(abs, -7).get() == 7 else 8
        except (OSError, MemoryError):
            code = 9
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status not in (7, 9):
        raise Wrong(f"a forked child that ended with {status}")
    if status == 9:
        raise OSError("the child's hub failed")


ALL = {
    f.__name__: f
    for f in (
        echo,
        pair,
        datagrams,
        wsgi,
        wsgi_handler,
        wsgi_tls,
        websocket,
        urllib_client,
        tls,
        processes,
        files,
        dns,
        threads,
        greenlets,
        selects,
        signals,
        forks,
    )
}

#: How a fault may show: as an error of the system, of memory, or of a client whose server failed.
EXPLAINED = (
    OSError,
    MemoryError,
    http.client.HTTPException,
    subprocess.SubprocessError,
)


def explained(error) -> bool:
    """Whether a fault in a system call may end a round so."""
    if isinstance(error, EXPLAINED):
        return True
    # CPython and the thread pool say so when there is no thread to be had.
    return isinstance(error, RuntimeError) and "thread" in str(error)


def run(name):
    """One round. Returns None, or the exception that ended it."""
    try:
        ALL[name]()
    except Wrong:
        raise
    except Exception as error:
        return error
    return None


if __name__ == "__main__":
    for name in sys.argv[1:] or ALL:
        print(name, run(name))
