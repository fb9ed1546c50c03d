"""A loop belongs to a thread: what another thread may do with it and its watchers, and what not."""

import socket as plain_socket
import threading

import pytest

import gevent
from gevent import timeout
from gevent.event import Event
from gevent.hub import get_hub

pytestmark = pytest.mark.ours


def away(call):
    """What ``call()`` gives in a native thread while this thread's loop sleeps."""
    outcome = []
    done = get_hub().loop.async_()
    heard = Event()

    def run():
        try:
            outcome.append(call())
        except BaseException as error:
            outcome.append(error)
        done.send()

    done.start(heard.set)
    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert heard.wait(30)
    finally:
        done.close()
        thread.join()
    return outcome[0]


def refused(call):
    error = away(call)
    assert type(error) is RuntimeError, error
    assert "run_callback_threadsafe" in str(error)


def nothing():
    pass


@pytest.mark.parametrize(
    "call",
    [
        lambda loop: loop.statistics,
        lambda loop: loop.reinit(),
        lambda loop: loop.update_now(),
        lambda loop: loop.update(),
        lambda loop: loop.ref(),
        lambda loop: loop.unref(),
        lambda loop: loop.break_(),
        lambda loop: loop.set_switch_interval(0.01),
        lambda loop: loop.leave_only_current(),
        lambda loop: loop.forget_fd(1000),
        lambda loop: loop.run(nowait=True),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_loop_of_another_thread_is_not_changed(call):
    loop = get_hub().loop
    before = loop.activecnt
    refused(lambda: call(loop))
    assert loop.activecnt == before


def test_the_time_of_another_threads_loop():
    loop = get_hub().loop
    before = loop.now()
    seen = away(loop.now)
    loop.update_now()
    # The wall clock may be set meanwhile, by a little.
    assert before - 1 <= seen <= loop.now() + 1


@pytest.mark.parametrize(
    "name", ["iteration", "depth", "pendingcnt", "activecnt", "queued", "ptr", "name", "default"]
)
def test_a_count_of_another_threads_loop(name):
    loop = get_hub().loop
    assert type(away(lambda: getattr(loop, name))) is type(getattr(loop, name))


def test_a_count_of_another_threads_loop_is_right():
    loop = get_hub().loop
    before = away(lambda: loop.iteration)
    gevent.sleep(0.001)
    assert away(lambda: loop.iteration) > before


KINDS = {
    "io": lambda loop: loop.io(0, 1),
    "timer": lambda loop: loop.timer(1000),
    "signal": lambda loop: loop.signal(10),
    "idle": lambda loop: loop.idle(),
    "prepare": lambda loop: loop.prepare(),
    "check": lambda loop: loop.check(),
    "fork": lambda loop: loop.fork(),
    "async": lambda loop: loop.async_(),
    "stat": lambda loop: loop.stat("/"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_watcher_of_another_threads_loop_is_not_changed(kind):
    loop = get_hub().loop
    with KINDS[kind](loop) as watcher:
        refused(lambda: watcher.start(nothing))
        assert watcher.callback is None
        assert not watcher.active
        refused(lambda: watcher.feed(1, nothing))
        assert watcher.callback is None
        assert not watcher.pending
        refused(lambda: setattr(watcher, "ref", False))
        assert watcher.ref
        refused(lambda: setattr(watcher, "priority", 1))
        assert watcher.priority == 0
        # What tells only, it may ask.
        for name in ("active", "pending", "ref", "priority"):
            assert away(lambda name=name: getattr(watcher, name)) == getattr(watcher, name)
        assert away(lambda: repr(watcher)) == repr(watcher)


def test_a_timer_of_another_threads_loop_does_not_move_its_time():
    loop = get_hub().loop
    with loop.timer(1000, 1000) as timer:
        for call in (
            lambda: timer.start(nothing, update=True),
            lambda: timer.again(nothing, update=True),
            lambda: timer.again(nothing),
            lambda: timer.at,
        ):
            refused(call)
        assert not timer.active
        timer.start(nothing)
        # Others may stop it.
        assert away(timer.stop) is None
        assert not timer.active


def test_what_an_io_watcher_of_another_threads_loop_watches():
    a, b = plain_socket.socketpair()
    with a, b, get_hub().loop.io(a.fileno(), 1) as watcher:
        refused(lambda: setattr(watcher, "fd", b.fileno()))
        refused(lambda: setattr(watcher, "events", 2))
        assert (watcher.fd, watcher.events_str) == (a.fileno(), "READ|_IOFDSET")


def test_another_thread_announces_a_close():
    loop = get_hub().loop
    a, b = plain_socket.socketpair()
    with a, b, loop.io(a.fileno(), 1) as watcher:
        heard = Event()
        watcher.start(heard.set)
        closer = threading.Thread(target=lambda: answers.append(loop.closing_fd(a.fileno())))
        answers = []
        closer.start()
        # The loop sleeps, or is about to: nothing but the announcement ends that.
        assert heard.wait(30)
        closer.join()
        assert answers == [True]
    assert away(lambda: loop.closing_fd(1000)) is False


def test_a_timeout_counts_in_the_thread_that_starts_it():
    made = timeout.Timeout(0.001)
    before = get_hub().loop.activecnt

    def run():
        # This thread has no hub yet, and its timeout is nothing that the other thread waits for.
        made.start()
        try:
            for _ in range(30_000):
                gevent.sleep(0.001)
        except timeout.Timeout as error:
            return error is made
        return "never"

    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(run()))
    thread.start()
    thread.join()
    assert outcome == [True]
    assert get_hub().loop.activecnt == before
    assert not made.pending


def test_a_running_timeout_is_stopped_by_another_thread():
    with timeout.Timeout(1000) as running:
        assert away(running.cancel) is None
        assert not running.pending
