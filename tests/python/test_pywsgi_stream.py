"""Bodies that an application makes block by block: what is gathered, and what may not wait."""

import contextlib
import io
import os
import select
import signal
import socket as native
import threading
import time

import pytest
from test_pywsgi_native import Serving, get, the_rest, until

import gevent
from gevent import queue

pytestmark = pytest.mark.ours


def chunked(*blocks):
    return b"".join(b"%x\r\n%s\r\n" % (len(block), block) for block in blocks)


def body(answer):
    return answer.partition(b"\r\n\r\n")[2]


def so_far(data):
    """What has come of a body in chunks, and whether that is all."""
    _, _, rest = data.partition(b"\r\n\r\n")
    whole = b""
    while b"\r\n" in rest:
        size, _, rest = rest.partition(b"\r\n")
        n = int(size, 16)
        if len(rest) < n + 2:
            break
        assert rest[n : n + 2] == b"\r\n"
        if n == 0:
            assert rest == b"\r\n"
            return whole, True
        whole += rest[:n]
        rest = rest[n + 2 :]
    return whole, False


def content(answer):
    """A whole body, whichever way its end is told."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"Transfer-Encoding: chunked" not in head:
        assert b"Content-Length: %d\r\n" % len(rest) in head + b"\r\n"
        return rest
    whole, over = so_far(answer)
    assert over
    return whole


def in_thread(function, *args):
    return gevent.get_hub().threadpool.apply(function, args)


@contextlib.contextmanager
def serving(application, trusted, **options):
    """A server of *application*, where /quick is answered by three quick blocks.

    One that is *trusted* has done so often enough for its blocks to be gathered.
    """

    def both(environ, start_response):
        if environ["PATH_INFO"] != "/quick":
            return application(environ, start_response)
        start_response("200 OK", [])
        return iter((b"1", b"2", b"3"))

    with Serving(both, **options) as it:
        for _ in range(40 if trusted else 0):
            assert content(it.talk(get("/quick"))) == b"123"
        yield it


class Watched:
    """An application whose client, in a thread, tells it what has reached it."""

    def __init__(self, blocks, by_write=False):
        self.blocks = blocks
        self.by_write = by_write
        self.seen = [threading.Event() for _ in blocks]
        self.in_time = []

    def __call__(self, environ, start_response):
        write = start_response("200 OK", [])
        return self.written(write) if self.by_write else self.yielded()

    def wait(self, event):
        # Neither gives way to the hub, as a computation would not.
        time.sleep(0.003)
        self.in_time.append(event.wait(30))

    def yielded(self):
        for block, event in zip(self.blocks, self.seen, strict=True):
            yield block
            self.wait(event)

    def written(self, write):
        for block, event in zip(self.blocks, self.seen, strict=True):
            write(block)
            self.wait(event)
        return []

    def client(self, address):
        data = b""
        with native.create_connection(address, 20) as sock:
            sock.sendall(get())
            for i, event in enumerate(self.seen):
                blocks = chunked(*self.blocks[: i + 1])
                data = until(sock, lambda data: blocks in data, data)
                event.set()
            return the_rest(sock, data)


@pytest.mark.parametrize("by_write", [False, True])
@pytest.mark.parametrize("trusted", [False, True])
def test_blocks_do_not_wait_for_a_computation(by_write, trusted):
    application = Watched([b"one", b"two", b"three", b"four"], by_write)
    with serving(application, trusted) as it:
        answer = in_thread(application.client, it.server.address)
    assert application.in_time == [True] * 4
    assert body(answer) == chunked(*application.blocks) + b"0\r\n\r\n"


@pytest.mark.parametrize("trusted", [False, True])
def test_quick_blocks_go_when_the_application_waits(trusted):
    def application(environ, start_response):
        start_response("200 OK", [])
        for n in range(3):
            yield from (b"a%d" % n, b"b%d" % n, b"c%d" % n)
            seen[n].wait()

    seen = [gevent.event.Event() for _ in range(3)]
    with serving(application, trusted) as it, it.connect() as sock:
        sock.sendall(get())
        data = b""
        for n in range(3):
            blocks = b"a%db%dc%d" % (n, n, n)
            data = until(sock, lambda data: so_far(data)[0].endswith(blocks), data)
            seen[n].set()
        data = the_rest(sock, data)
    assert so_far(data) == (b"a0b0c0a1b1c1a2b2c2", True)


def test_what_waits_goes_before_other_greenlets_run():
    """A greenlet that computes, and is next in the queue, does not hold it up."""

    def application(environ, start_response):
        start_response("200 OK", [])
        yield b"one"
        yield b"two"
        gevent.spawn(lambda: in_time.put(arrived.wait(30)))
        gevent.sleep(0)

    def client(address):
        with native.create_connection(address, 20) as sock:
            sock.sendall(get())
            until(sock, lambda data: chunked(b"one", b"two") in data)
            arrived.set()

    in_time = queue.Queue()
    arrived = threading.Event()
    with Serving(application) as it:
        in_thread(client, it.server.address)
        assert in_time.get(timeout=30)


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("kind", ["chunked", "length", "1.0", "head", "pipeline"])
@pytest.mark.parametrize(
    "sizes", [[1] * 3000, [10, 9000, 10, 10, 200000, 3, 70000, 1], [7], [30000] * 5, [1] * 60000]
)
def test_order_and_framing(kind, sizes, trusted):
    blocks = [bytes([65 + i % 26]) * size for i, size in enumerate(sizes)]
    whole = b"".join(blocks)

    def application(environ, start_response):
        length = [("Content-Length", str(len(whole)))] if kind == "length" else []
        start_response("200 OK", length)
        return iter(blocks)

    request = get()
    if kind == "1.0":
        request = b"GET / HTTP/1.0\r\n\r\n"
    elif kind == "head":
        request = request.replace(b"GET", b"HEAD")
    elif kind == "pipeline":
        request = get(close=False) * 2 + request
    want = {"length": whole, "1.0": whole, "head": b""}.get(kind, chunked(*blocks) + b"0\r\n\r\n")
    with serving(application, trusted) as it:
        answer = it.talk(request)
        if kind == "pipeline":
            answers = [b"HTTP/1.1 " + rest for rest in answer.split(b"HTTP/1.1 ")[1:]]
            assert [content(each) for each in answers] == [whole] * 3
        elif kind == "chunked":
            assert content(answer) == whole
        else:
            assert body(answer) == want
        if not trusted and kind in ("chunked", "pipeline"):
            assert answer.endswith(want)


@pytest.mark.parametrize("told", [False, True])
def test_an_answer_that_ends_soon_is_one_piece(told):
    def application(environ, start_response):
        start_response("200 OK", [("Content-Length", "9")] if told else [])
        return iter((b"one", b"two", b"six"))

    with Serving(application) as it:
        for _ in range(40):
            it.talk(get("/quick"))
        with it.connect() as sock:
            for _ in range(3):
                sock.sendall(get(close=False))
                answer = sock.recv(65536)
                assert content(answer) == b"onetwosix"
                assert b"Transfer-Encoding" not in answer
                assert answer.count(b"Content-Length: 9\r\n") == 1


def test_what_is_gathered_is_sent_by_a_thread_while_the_application_computes():
    def application(environ, start_response):
        start_response("200 OK", [])
        yield from (b"one", b"two", b"three")
        time.sleep(0.002)
        in_time.append(arrived.wait(3))
        yield from (b"four", b"five")

    def client(address):
        data = b""
        with native.create_connection(address, 20) as sock:
            sock.sendall(get())
            while so_far(data)[0] != b"onetwothree" and (more := sock.recv(4096)):
                data += more
            arrived.set()
            return the_rest(sock, data)

    in_time = []
    with serving(application, trusted=True) as it:
        # On a busy machine an answer may be slow, and then the next one is not gathered whole.
        while in_time.count(True) < 3 and len(in_time) < 8:
            arrived = threading.Event()
            assert content(in_thread(client, it.server.address)) == b"onetwothreefourfive"
            for _ in range(300):
                it.talk(get("/quick"))
    assert in_time.count(True) == 3


def test_an_answer_is_counted_whole():
    def application(environ, start_response):
        start_response("200 OK", [])
        yield from (b"one", b"two")
        if environ["PATH_INFO"] == "/waits":
            gevent.sleep(0)
            yield b"three"

    log = io.StringIO()
    with Serving(application, log=log) as it:
        for path in ["/"] * 40 + ["/waits"] * 5:
            answer = it.talk(get(path))
            while log.getvalue().count("\n") == 0:
                gevent.sleep(0)
            line = log.getvalue()
            log.truncate(0)
            log.seek(0)
            assert f" 200 {len(answer)} " in line


@pytest.mark.parametrize("trusted", [False, True])
def test_what_was_yielded_before_an_error_is_sent(trusted):
    def application(environ, start_response):
        start_response("200 OK", [])
        yield from (b"one", b"two", b"three")
        raise ZeroDivisionError

    with serving(application, trusted) as it:
        hub = gevent.get_hub()
        quiet, hub.handle_error = hub.handle_error, lambda *_: None
        try:
            answer = it.talk(get())
        finally:
            hub.handle_error = quiet
    assert so_far(answer) == (b"onetwothree", False)


def test_a_client_that_does_not_read_holds_the_application_up():
    total = 200_000
    block = b"x" * 100

    def application(environ, start_response):
        start_response("200 OK", [("Content-Length", str(total * len(block)))])
        for n in range(total):
            made[0] = n + 1
            yield block

    made = [0]
    with Serving(application) as it, it.connect() as sock:
        sock.sendall(get())
        before = -1
        while made[0] != before or not before:
            before = made[0]
            gevent.sleep(0.1)
        assert 0 < before < total
        got = 0
        while more := sock.recv(1 << 20):
            got += len(more)
    assert made[0] == total
    assert got > total * len(block)


def test_a_client_that_has_gone_ends_the_application():
    class Endless:
        def __iter__(self):
            return self

        def __next__(self):
            return b"again"

        def close(self):
            closed.set()

    def application(environ, start_response):
        start_response("200 OK", [])
        return Endless()

    closed = gevent.event.Event()
    with Serving(application) as it:
        with it.connect() as sock:
            sock.sendall(get())
            assert sock.recv(100)
        assert closed.wait(20)


# CPython 3.12 and later see the thread.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_has_a_thread_of_its_own():
    def application(environ, start_response):
        start_response("200 OK", [])
        yield b"%d" % os.getpid()
        # The client ends this when it has the block.
        read, _, _ = select.select([go], [], [], 30)
        yield b" in time" if read else b" late"

    go, release = os.pipe()
    with serving(application, trusted=True) as it:
        pid = gevent.os.fork()
        if not pid:
            with gevent.Timeout(30, False):
                gevent.sleep(30)
            os._exit(0)
        it.server.stop_accepting()
        try:
            with native.create_connection(it.server.address, 20) as sock:
                sock.sendall(get("/", close=False))
                data = until(sock, lambda data: so_far(data)[0])
                os.write(release, b"x")
                data = until(sock, lambda data: so_far(data)[1], data)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(go)
            os.close(release)
    assert so_far(data) == (b"%d in time" % pid, True)
