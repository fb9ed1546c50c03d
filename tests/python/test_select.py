"""select, poll and selectors: what is ready, who else runs, and descriptors that go away."""

import errno
import os
import select as std
import selectors as std_selectors
import time

import pytest
import scripts

import gevent
from gevent import select, selectors, socket
from gevent.event import Event


@pytest.fixture
def pipe():
    r, w = os.pipe()
    open_ends = [r, w]
    yield open_ends
    for fd in open_ends:
        os.close(fd)


def test_select_lets_others_run(pipe):
    r, w = pipe
    gevent.spawn_later(0.02, os.write, w, b"x")
    assert select.select([r], [], []) == ([r], [], [])
    assert os.read(r, 10) == b"x"


def test_select_returns_the_objects_it_was_given():
    a, b = socket.socketpair()
    with a, b:
        b.send(b"1")
        assert select.select([a, b], [a], [], 5) == ([a], [a], [])
        gevent.spawn_later(0.01, b.send, b"2")
        assert a.recv(1) == b"1"
        assert select.select(iter([a]), iter([]), [], 5) == ([a], [], [])


def test_select_times_out(pipe):
    began = time.monotonic()
    assert select.select([pipe[0]], [], [], 0.02) == ([], [], [])
    assert time.monotonic() - began >= 0.015
    assert select.select([pipe[0]], [], [], 0) == ([], [], [])


@pytest.mark.parametrize(
    "args, error",
    [
        (([], [], [], -1), ValueError),
        (([-1], [], []), ValueError),
        ((["x"], [], []), TypeError),
        (([], [], [], "x"), TypeError),
    ],
)
def test_select_refuses(args, error):
    with pytest.raises(error):
        select.select(*args)


def test_select_of_a_closed_descriptor():
    r, w = os.pipe()
    os.close(r)
    os.close(w)
    with pytest.raises(OSError) as info:
        select.select([r], [], [])
    assert info.value.errno == errno.EBADF


def test_socket_closed_while_selected():
    a, b = socket.socketpair()
    gevent.spawn_later(0.01, a.close)
    with gevent.Timeout(30):
        assert select.select([a], [], [], 4) == ([a], [], [])
    b.close()


def test_poll(pipe):
    r, w = pipe
    poller = select.poll()
    poller.register(r, select.POLLIN)
    poller.register(w, select.POLLOUT)
    assert poller.poll(1000) == [(w, select.POLLOUT)]
    poller.unregister(w)
    assert poller.poll(10) == []
    gevent.spawn_later(0.01, os.write, w, b"x")
    assert poller.poll() == [(r, select.POLLIN)]
    poller.modify(r, select.POLLOUT)
    assert poller.poll(10) == []
    with pytest.raises(KeyError):
        poller.unregister(w)


def test_poll_of_a_closed_descriptor():
    r, w = os.pipe()
    poller = select.poll()
    poller.register(r, select.POLLIN)
    os.close(r)
    os.close(w)
    assert (r, select.POLLNVAL) in poller.poll(10)


def test_selector():
    a, b = socket.socketpair()
    with a, b, selectors.DefaultSelector() as selector:
        key = selector.register(a, selectors.EVENT_READ, "data")
        assert key.data == "data"
        assert selector.select(0.01) == []
        gevent.spawn_later(0.01, b.send, b"1")
        assert selector.select(5) == [(key, selectors.EVENT_READ)]
        # Still there, so still ready.
        assert selector.select(5) == [(key, selectors.EVENT_READ)]
        a.recv(1)
        both = selector.modify(a, selectors.EVENT_READ | selectors.EVENT_WRITE)
        assert selector.select(5) == [(both, selectors.EVENT_WRITE)]
        assert selector.get_key(a) == both
        with pytest.raises(KeyError):
            selector.register(a, selectors.EVENT_READ)
        with pytest.raises(ValueError):
            selector.register(b, 0)
        selector.unregister(a)
        assert selector.select(0) == []
        with pytest.raises(KeyError):
            selector.unregister(a)


def test_selector_without_waiting():
    a, b = socket.socketpair()
    with a, b, selectors.DefaultSelector() as selector:
        selector.register(a, selectors.EVENT_WRITE)
        assert [len(selector.select(0)) for _ in range(10)] == [1] * 10


def test_revoked_news():
    # The event that ends one wait must not be the news of the next.
    event = Event()
    a, b = socket.socketpair()
    with a, b:
        io = gevent.get_hub().loop.io(a.fileno(), 2)
        io.start(event.set)
        event.wait(0)
        io.stop()
        io.close()
        event.clear()
        assert event.wait(0.01) is False


def test_selector_hears_several():
    pairs = [socket.socketpair() for _ in range(20)]
    with selectors.DefaultSelector() as selector:
        for index, (a, _) in enumerate(pairs):
            selector.register(a, selectors.EVENT_READ, index)
        for _, b in pairs[::2]:
            b.send(b"x")
        found = set()
        while len(found) < 10:
            found |= {key.data for key, _ in selector.select(5)}
        assert found == set(range(0, 20, 2))
    for a, b in pairs:
        a.close()
        b.close()


def test_asyncio_runs_in_a_greenlet():
    import asyncio

    async def main():
        while len(ticks) < 3:
            await asyncio.sleep(0.002)
        return 42

    ticks = []

    def tick():
        while True:
            ticks.append(1)
            gevent.sleep(0.002)

    ticker = gevent.spawn(tick)
    loop = asyncio.SelectorEventLoop(selectors.DefaultSelector())
    try:
        assert loop.run_until_complete(main()) == 42
    finally:
        loop.close()
        ticker.kill()


def test_offers_the_standard_names():
    assert select.error is OSError
    assert select.POLLIN == std.POLLIN
    assert issubclass(selectors.DefaultSelector, std_selectors.BaseSelector)


def test_watchers_of_one_descriptor_run_in_the_order_of_their_start():
    loop = gevent.get_hub().loop
    a, b = socket.socketpair()
    a.setblocking(False)
    out = []
    watchers = [loop.io(a.fileno(), 1) for _ in range(4)]

    def readable(n):
        out.append(n)
        watchers[n].stop()

    for n, watcher in enumerate(watchers):
        watcher.start(readable, n)
    b.send(b"x")
    while len(out) < 4:
        gevent.sleep(0.01)
    for watcher in watchers:
        watcher.close()
    a.close()
    b.close()
    assert out == [0, 1, 2, 3]


@pytest.mark.ours  # libev's wakes from threads are seen by a poll of its own only
def test_a_loop_can_be_waited_for_by_its_descriptor():
    """As another program's loop does that runs this one when there is something to do."""
    code = """
        import select, socket, threading, time
        import gevent

        loop = gevent.get_hub().loop
        here, there = socket.socketpair()
        seen = []
        io = loop.io(here.fileno(), 1)
        io.start(lambda: seen.append(here.recv(10)))
        waker = loop.async_()
        waker.start(seen.append, "async")
        fd = loop.fileno()
        loop.run(nowait=True)
        outer = select.poll()
        outer.register(fd, select.POLLIN)

        def after(seconds, *call):
            thread = threading.Timer(seconds, *call)
            thread.start()
            return thread

        for call in [(there.send, (b"x",)), (waker.send,)] * 2:
            thread = after(0.02, *call)
            begun, before = time.monotonic(), len(seen)
            while len(seen) == before:
                assert outer.poll(20000)
                loop.run(nowait=True)
            assert time.monotonic() - begun < 15
            thread.join()
        print(seen)
    """
    done = scripts.run(code, timeout=50)
    assert (done.out, done.err) == ("[b'x', 'async', b'x', 'async']\n", "")
