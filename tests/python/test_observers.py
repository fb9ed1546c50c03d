"""What trace and profile functions, and tools of `sys.monitoring`, see of greenlets that wait.

They ask at a call or a return which greenlet runs. So one has to come after each wait, before the
next line of who waited: coverage.py and profilers put that line down to another greenlet else.
"""

import contextlib
import functools
import os
import socket as real_socket
import sys
import threading

import pytest

import gevent
from gevent import get_hub, select, socket, subprocess
from gevent.event import AsyncResult, Event
from gevent.hub import Waiter
from gevent.lock import BoundedSemaphore, RLock, Semaphore
from gevent.os import make_nonblocking, nb_read
from gevent.pool import Pool
from gevent.queue import Channel, JoinableQueue, Queue, SimpleQueue
from gevent.threadpool import ThreadPool
from greenlet import getcurrent

only_ours = functools.partial(pytest.param, marks=pytest.mark.ours)
from_3_12 = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="sys.monitoring came with CPython 3.12"
)


#: Closes what the waits need.
at_the_end = contextlib.ExitStack()


@pytest.fixture(autouse=True)
def _close():
    with at_the_end:
        yield


def of_a_lock(kind):
    lock = kind()
    lock.acquire()
    # Not by the greenlet that will have it: an RLock is released by its owner.
    return lock.acquire, lock.release


def of_an_event():
    event = Event()
    return event.wait, event.set


def of_a_result():
    result = AsyncResult()
    return result.get, lambda: result.set(1)


def of_a_queue(kind):
    queue = kind()
    return queue.get, lambda: queue.put(1)


def of_a_full_queue():
    queue = Queue(1)
    queue.put(1)
    return lambda: queue.put(2), queue.get


def of_tasks():
    queue = JoinableQueue()
    queue.put(1)
    return queue.join, queue.task_done


def of_bytes(wait):
    ours, theirs = map(at_the_end.enter_context, socket.socketpair())
    return lambda: wait(ours), lambda: theirs.send(b"x")


def of_a_connection():
    listener = at_the_end.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    client = at_the_end.enter_context(real_socket.socket())

    def accept():
        at_the_end.enter_context(listener.accept()[0])

    return accept, lambda: client.connect(listener.getsockname())


def of_a_greenlet(wait):
    event = Event()
    waited_for = gevent.spawn(event.wait)
    return lambda: wait(waited_for), event.set


def pipe():
    ends = os.pipe()
    for end in ends:
        at_the_end.callback(os.close, end)
    return ends


def of_a_thread():
    pool = ThreadPool(1)
    at_the_end.callback(pool.kill)
    reading, writing = pipe()
    return lambda: pool.apply(os.read, (reading, 1)), lambda: os.write(writing, b"x")


def of_a_pipe():
    reading, writing = pipe()
    make_nonblocking(reading)
    return lambda: nb_read(reading, 1), lambda: os.write(writing, b"x")


def of_a_child():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    return child.wait, lambda: child.communicate(b"\n")


def of_a_pool(wait):
    event, pool = Event(), Pool(1)
    pool.spawn(event.wait)
    return lambda: wait(pool), event.set


def of_an_iterator():
    event = Event()
    results = Pool(1).imap_unordered(lambda _: event.wait(), [1])
    return lambda: next(results), event.set


def of_a_waiter():
    waiter = Waiter()
    return waiter.get, lambda: get_hub().loop.run_callback(waiter.switch, 1)


def of_the_hub():
    waiting = []

    def wait():
        waiting.append(getcurrent())
        get_hub().switch()

    return wait, lambda: get_hub().loop.run_callback(waiting[0].switch)


def of_a_limit():
    return lambda: gevent.with_timeout(0.001, Event().wait, timeout_value=1), int


WAITS = {
    "sleep": lambda: (functools.partial(gevent.sleep, 0.001), int),
    "sleep-0": lambda: (gevent.sleep, int),
    "idle": lambda: (gevent.idle, int),
    "semaphore": lambda: of_a_lock(Semaphore),
    "bounded-semaphore": lambda: of_a_lock(BoundedSemaphore),
    "rlock": lambda: of_a_lock(RLock),
    "event": of_an_event,
    "result": of_a_result,
    "queue": lambda: of_a_queue(Queue),
    "simple-queue": lambda: of_a_queue(SimpleQueue),
    "channel": lambda: of_a_queue(Channel),
    "full-queue": of_a_full_queue,
    "tasks": of_tasks,
    "recv": lambda: of_bytes(lambda sock: sock.recv(1)),
    "recv_into": lambda: of_bytes(lambda sock: sock.recv_into(bytearray(1))),
    "accept": of_a_connection,
    "select": lambda: of_bytes(lambda sock: select.select([sock], [], [])),
    "greenlet-get": lambda: of_a_greenlet(lambda g: g.get()),
    "greenlet-join": lambda: of_a_greenlet(lambda g: g.join()),
    "thread": of_a_thread,
    "pipe": of_a_pipe,
    "child": of_a_child,
    "pool-join": lambda: of_a_pool(lambda pool: pool.join()),
    "pool-spawn": lambda: of_a_pool(lambda pool: pool.spawn(int)),
    "imap": of_an_iterator,
    "limit": of_a_limit,
}
# Where nothing of Python runs in the greenlet on upstream.
ONLY_OURS = {
    "joinall": lambda: of_a_greenlet(lambda g: gevent.joinall([g])),
    "wait": lambda: of_a_greenlet(lambda g: gevent.wait([g])),
    "kill": lambda: of_a_greenlet(lambda g: g.kill()),
    "waiter": of_a_waiter,
    "hub": of_the_hub,
    "wait_read": lambda: of_bytes(lambda sock: socket.wait_read(sock.fileno())),
}
ALL = [*WAITS, *map(only_ours, ONLY_OURS)]


def others():
    """Runs Python code in some other greenlet."""
    total = 0
    for number in range(3):
        total += number
    return total


class Lines:
    """Puts lines down as C tracers do: to the greenlet that ran at the last call or return."""

    def __init__(self, code):
        self.code = code
        self.running = None
        self.found = []

    def trace(self, frame, event, arg):
        if event != "line":
            self.running = getcurrent()
        elif frame.f_code is self.code:
            self.found.append((frame.f_lineno, self.running is getcurrent()))
        return self.trace


@contextlib.contextmanager
def traced(function):
    sys.settrace(function)
    try:
        yield
    finally:
        sys.settrace(None)


@contextlib.contextmanager
def profiled(function):
    sys.setprofile(function)
    try:
        yield
    finally:
        sys.setprofile(None)


@contextlib.contextmanager
def monitored(function):
    monitoring = sys.monitoring
    tool, events = monitoring.PROFILER_ID, monitoring.events
    monitoring.use_tool_id(tool, "test")
    try:
        for event in (events.PY_START, events.PY_RETURN):
            monitoring.register_callback(tool, event, function)
        monitoring.set_events(tool, events.PY_START | events.PY_RETURN)
        yield
    finally:
        monitoring.set_events(tool, 0)
        for event in (events.PY_START, events.PY_RETURN):
            monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)


def run_watched(kind, watch, body):
    """Runs *body*, which gets a function that waits, in a greenlet that is watched."""
    wait, wake = {**WAITS, **ONLY_OURS}[kind]()
    waiting = gevent.spawn(body, wait)
    with watch:
        for _ in range(3):
            gevent.spawn(others)
            gevent.sleep(0)
        gevent.spawn(others)
        wake()
        waiting.get()
    return waiting


@pytest.mark.parametrize("kind", ALL)
def test_lines_after_a_wait_are_those_of_the_greenlet_that_waited(kind):
    def body(wait):
        wait()
        after = 1
        return after

    lines = Lines(body.__code__)
    run_watched(kind, traced(lines.trace), body)
    first = body.__code__.co_firstlineno
    assert lines.found == [(first + 1, True), (first + 2, True), (first + 3, True)]


def last_seen_after_a_wait(kind, watched_by):
    """Whom a watcher of calls and returns saw last before who waited goes on, and who that is."""
    seen, at_the_line = [], []

    def body(wait):
        wait()
        at_the_line.append(seen[-1])

    waiting = run_watched(kind, watched_by(lambda: seen.append(getcurrent())), body)
    return at_the_line, [waiting]


@pytest.mark.parametrize("kind", ALL)
def test_a_profile_function_is_called_in_a_greenlet_before_it_goes_on(kind):
    def watched_by(see):
        return profiled(lambda frame, event, arg: see() if event in ("call", "return") else None)

    seen, waiting = last_seen_after_a_wait(kind, watched_by)
    assert seen == waiting


@from_3_12
@pytest.mark.ours
@pytest.mark.parametrize("kind", [*WAITS, *ONLY_OURS])
def test_a_tool_hears_of_a_call_in_a_greenlet_before_it_goes_on(kind):
    seen, waiting = last_seen_after_a_wait(kind, lambda see: monitored(lambda *event: see()))
    assert seen == waiting


@pytest.fixture
def calls():
    """Counts the calls that are made for watchers."""
    made = []
    from gevent import _core, _resumed

    _core.call_when_resumed(lambda: made.append(getcurrent()))
    yield made
    _core.call_when_resumed(_resumed.resumed)


def waits(number):
    for _ in range(number):
        gevent.sleep(0)


@pytest.mark.ours
class TestWhoPays:
    def test_nobody_while_nobody_watches(self, calls):
        waits(5)
        with traced(lambda *event: None):
            waits(5)
        assert calls == [getcurrent()] * 5
        with profiled(lambda *event: None):
            waits(5)
        waits(5)
        assert calls == [getcurrent()] * 10

    @from_3_12
    def test_nobody_when_a_tool_has_lost_its_interest(self, calls):
        for _ in range(2):
            with monitored(lambda *event: None):
                waits(5)
                sys.monitoring.set_events(sys.monitoring.PROFILER_ID, 0)
                waits(5)
        assert calls == [getcurrent()] * 10

    @from_3_12
    def test_nobody_for_a_tool_that_wants_other_events(self, calls):
        tool = sys.monitoring.PROFILER_ID
        sys.monitoring.use_tool_id(tool, "test")
        try:
            sys.monitoring.set_events(tool, sys.monitoring.events.RAISE)
            waits(5)
        finally:
            sys.monitoring.set_events(tool, 0)
            sys.monitoring.free_tool_id(tool)
        assert calls == []

    def test_a_thread_that_is_not_watched_does_not(self, calls):
        def in_a_thread():
            waits(5)
            gevent.get_hub().destroy(destroy_loop=True)

        with traced(lambda *event: None):
            thread = threading.Thread(target=in_a_thread)
            # `settrace` is this thread's alone.
            thread.start()
            thread.join()
            made = list(calls)
        assert made == []


class Stop(Exception):
    pass


@pytest.mark.ours
class TestAWatcherThatRaises:
    """Its error is raised where the greenlet waited."""

    @staticmethod
    def raise_in(name):
        def trace(frame, event, arg):
            if event == "call" and frame.f_code.co_name == name:
                raise Stop

        return trace

    def test_the_error_comes_out_of_the_wait(self):
        with traced(self.raise_in("resumed")), pytest.raises(Stop):
            gevent.sleep(0)
        gevent.sleep(0)

    def test_what_was_granted_goes_to_the_next(self):
        lock = Semaphore(0)
        first, second = gevent.spawn(lock.acquire), gevent.spawn(lock.acquire)
        gevent.sleep(0)
        lock.release()
        hub = get_hub()
        hub.exception_stream = None
        try:
            # The first one is the next to go on. CPython removes a function that raises.
            sys.settrace(self.raise_in("resumed"))
            with pytest.raises(Stop):
                first.get()
        finally:
            sys.settrace(None)
            del hub.exception_stream
        assert second.get(timeout=30) is True
        assert lock.counter == 0

    def test_an_error_that_ended_the_wait_is_kept_if_the_watcher_is_content(self):
        with traced(lambda *event: None), pytest.raises(gevent.Timeout) as found:
            limit = gevent.Timeout.start_new(0.001)
            Event().wait()
        assert found.value is limit

    def test_it_may_wait_itself(self):
        event = Event()

        def trace(frame, kind, arg):
            if frame.f_code.co_name == "resumed":
                gevent.sleep(0)

        waiting = gevent.spawn(event.wait)
        gevent.sleep(0)
        event.set()
        with traced(trace):
            assert waiting.get() is True
            queue = Queue()
            gevent.spawn(queue.put, 7)
            assert queue.get() == 7
