"""Bodies that an application makes block by block: what is gathered, and what may not wait."""

import socket as native
import threading
import time

import pytest
from test_pywsgi_native import Serving, get

import gevent

pytestmark = pytest.mark.ours


def chunked(*blocks):
    return b"".join(b"%x\r\n%s\r\n" % (len(block), block) for block in blocks)


def body(answer):
    return answer.partition(b"\r\n\r\n")[2]


def in_thread(function, *args):
    return gevent.get_hub().threadpool.apply(function, args)


def earn_trust(serving):
    for _ in range(40):
        assert serving.talk(get("/quick")).endswith(chunked(b"1", b"2", b"3") + b"0\r\n\r\n")


class Watched:
    """An application whose client, in a thread, tells it what has reached it."""

    def __init__(self, blocks, by_write=False):
        self.blocks = blocks
        self.by_write = by_write
        self.seen = [threading.Event() for _ in blocks]
        self.in_time = []

    def __call__(self, environ, start_response):
        write = start_response("200 OK", [])
        if environ["PATH_INFO"] == "/quick":
            return iter((b"1", b"2", b"3"))
        return self.written(write) if self.by_write else self.yielded()

    def wait(self, event):
        # Neither gives way to the hub, as a computation would not.
        time.sleep(0.003)
        self.in_time.append(event.wait(10))

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
                while chunked(*self.blocks[: i + 1]) not in data:
                    data += sock.recv(4096)
                event.set()
            while more := sock.recv(4096):
                data += more
        return data


@pytest.mark.parametrize("by_write", [False, True])
@pytest.mark.parametrize("trusted", [False, True])
def test_blocks_do_not_wait_for_a_computation(by_write, trusted):
    application = Watched([b"one", b"two", b"three", b"four"], by_write)
    with Serving(application) as serving:
        if trusted:
            earn_trust(serving)
        answer = in_thread(application.client, serving.server.address)
    assert application.in_time == [True] * 4
    assert body(answer) == chunked(*application.blocks) + b"0\r\n\r\n"


@pytest.mark.parametrize("trusted", [False, True])
def test_quick_blocks_go_when_the_application_waits(trusted):
    def application(environ, start_response):
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/quick":
            yield from (b"1", b"2", b"3")
            return
        for n in range(3):
            yield from (b"a%d" % n, b"b%d" % n, b"c%d" % n)
            seen[n].wait()

    seen = [gevent.event.Event() for _ in range(3)]
    with Serving(application) as serving:
        if trusted:
            earn_trust(serving)
        with serving.connect() as sock:
            sock.sendall(get())
            data = b""
            for n in range(3):
                while chunked(b"a%d" % n, b"b%d" % n, b"c%d" % n) not in data:
                    more = sock.recv(4096)
                    assert more
                    data += more
                seen[n].set()
            while more := sock.recv(4096):
                data += more
    assert data.endswith(chunked(b"c2") + b"0\r\n\r\n")


def test_what_waits_goes_before_other_greenlets_run():
    """A greenlet that computes, and is next in the queue, does not hold it up."""

    def application(environ, start_response):
        start_response("200 OK", [])
        yield b"one"
        yield b"two"
        gevent.spawn(lambda: in_time.append(arrived.wait(10)))
        gevent.sleep(0)

    def client(address):
        data = b""
        with native.create_connection(address, 20) as sock:
            sock.sendall(get())
            while chunked(b"one", b"two") not in data:
                data += sock.recv(4096)
            arrived.set()

    in_time = []
    arrived = threading.Event()
    with Serving(application) as serving:
        in_thread(client, serving.server.address)
        while not in_time:
            gevent.sleep(0.01)
    assert in_time == [True]


@pytest.mark.parametrize("kind", ["chunked", "length", "1.0", "head", "pipeline"])
@pytest.mark.parametrize("sizes", [[1] * 3000, [10, 9000, 10, 10, 200000, 3, 70000, 1], [7]])
def test_order_and_framing(kind, sizes):
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
    with Serving(application) as serving:
        answer = serving.talk(request)
        if kind == "pipeline":
            assert [rest.partition(b"\r\n\r\n")[2] for rest in answer.split(b"HTTP/1.1 ")[1:]] == (
                [want] * 3
            )
        else:
            assert body(answer) == want


def test_what_was_yielded_before_an_error_is_sent():
    def application(environ, start_response):
        start_response("200 OK", [])
        yield from (b"one", b"two", b"three")
        raise ZeroDivisionError

    with Serving(application) as serving:
        hub = gevent.get_hub()
        quiet, hub.handle_error = hub.handle_error, lambda *_: None
        try:
            answer = serving.talk(get())
        finally:
            hub.handle_error = quiet
    assert body(answer) == chunked(b"one", b"two", b"three")


def test_a_client_that_does_not_read_holds_the_application_up():
    total = 200_000
    block = b"x" * 100

    def application(environ, start_response):
        start_response("200 OK", [("Content-Length", str(total * len(block)))])
        for n in range(total):
            made[0] = n + 1
            yield block

    made = [0]
    with Serving(application) as serving, serving.connect() as sock:
        sock.sendall(get())
        before = -1
        while made[0] != before:
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
    with Serving(application) as serving:
        with serving.connect() as sock:
            sock.sendall(get())
            assert sock.recv(100)
        assert closed.wait(20)
