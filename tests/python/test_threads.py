"""Events, semaphores, locks and queues between native threads, with hubs and without."""

import _thread
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

import gevent
from gevent import queue
from gevent._hub_local import get_hub_if_exists
from gevent.event import AsyncResult, Event
from gevent.lock import BoundedSemaphore, RLock, Semaphore

native = threading.Thread


def run_native(*functions, timeout=10):
    """Run each function in a thread of its own while this thread's hub goes on."""
    results = [None] * len(functions)

    def call(index, function):
        try:
            results[index] = ("ok", function(), get_hub_if_exists() is not None)
        except BaseException as ex:
            results[index] = ("failed", repr(ex), get_hub_if_exists() is not None)

    threads = [native(target=call, args=item, daemon=True) for item in enumerate(functions)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout
    while any(thread.is_alive() for thread in threads):
        assert time.monotonic() < deadline, results
        gevent.sleep(0.002)
    assert all(result[0] == "ok" for result in results), results
    return results


@pytest.mark.ours
@pytest.mark.parametrize("kind", [Event, AsyncResult])
def test_thread_without_hub_waits_for_a_greenlet(kind):
    one = kind()
    gevent.spawn_later(0.02, one.set, *(["value"] if kind is AsyncResult else []))
    [(_, result, made_hub)] = run_native(one.wait)
    assert result == ("value" if kind is AsyncResult else True)
    assert not made_hub


@pytest.mark.ours
def test_thread_without_hub_times_out():
    event, semaphore, q = Event(), Semaphore(0), queue.Queue()

    def wait():
        began = time.monotonic()
        assert event.wait(0.02) is False
        assert semaphore.acquire(timeout=0.02) is False
        with pytest.raises(gevent.Timeout):
            AsyncResult().get(timeout=0.02)
        with pytest.raises(queue.Empty):
            q.get(timeout=0.02)
        return time.monotonic() - began

    [(_, took, made_hub)] = run_native(wait)
    assert took >= 0.08
    assert not made_hub
    assert event.linkcount() == semaphore.linkcount() == 0
    assert not q.getters


def test_event_set_by_a_thread_wakes_greenlets_at_once():
    event = Event()
    waiters = [gevent.spawn(event.wait) for _ in range(10)]
    gevent.sleep(0)
    # The loop has nothing else to do, so nothing but the set can wake it.
    keep_alive = gevent.get_hub().loop.async_()
    keep_alive.start(lambda: None)
    try:
        native(target=lambda: (time.sleep(0.02), event.set())).start()
        began = time.monotonic()
        gevent.joinall(waiters, timeout=30, raise_error=True)
        assert time.monotonic() - began < 25
        assert [waiter.value for waiter in waiters] == [True] * 10
    finally:
        keep_alive.stop()
        keep_alive.close()


@pytest.mark.ours
def test_main_greenlet_waits_for_an_idle_thread():
    # There is nothing in the loop, but there is a thread that can set the event.
    event = Event()
    native(target=lambda: (time.sleep(0.05), event.set()), daemon=True).start()
    assert event.wait() is True


def test_deadlock_is_told():
    # In a process without other threads, such as the one that watches over this test's time.
    code = """
import gevent
from gevent import event, lock, queue
for one in lock.Semaphore(0), event.Event(), event.AsyncResult(), queue.Queue():
    try:
        one.get() if hasattr(one, "get") else one.wait()
    except gevent.exceptions.LoopExit:
        print("told")
"""
    printed = subprocess.check_output([sys.executable, "-c", code], text=True, timeout=30)
    assert printed.split() == ["told"] * 4


@pytest.mark.ours
@pytest.mark.parametrize("kind", [Semaphore, BoundedSemaphore, RLock])
@pytest.mark.parametrize("with_hub", [False, True])
def test_lock_excludes_across_threads_and_greenlets(kind, with_hub):
    lock = kind()
    inside = []
    rounds = 100

    def work(sleep):
        for turn in range(rounds):
            with lock:
                inside.append(1)
                assert len(inside) == 1
                if turn % 25 == 0:
                    sleep(0.0005)
                inside.pop()

    def work_in_thread():
        if with_hub:
            gevent.get_hub()
        work(time.sleep)
        if with_hub:
            gevent.get_hub().destroy(destroy_loop=True)

    greenlets = [gevent.spawn(work, gevent.sleep) for _ in range(3)]
    run_native(work_in_thread, work_in_thread, work_in_thread, timeout=30)
    gevent.joinall(greenlets, timeout=30, raise_error=True)
    assert all(greenlet.successful() for greenlet in greenlets)
    assert lock.acquire(blocking=False)


@pytest.mark.ours
def test_no_thread_keeps_the_semaphore_to_itself():
    # A greenlet that acquires again and again must let a waiting thread have it now and then.
    semaphore = Semaphore()
    got = []

    def greedy():
        while not got:
            with semaphore:
                gevent.sleep(0)

    def thread():
        with semaphore:
            got.append(1)

    greenlet = gevent.spawn(greedy)
    run_native(thread)
    greenlet.join(30)
    assert greenlet.ready()


@pytest.mark.ours
@pytest.mark.parametrize("maxsize", [None, 1, 3])
def test_queue_between_threads_and_greenlets_loses_nothing(maxsize):
    q = queue.Queue(maxsize)
    count, producers, consumers = 100, 3, 3
    seen = []

    def produce(name, pause):
        def run():
            for number in range(count):
                q.put((name, number))
                if number % 30 == 0:
                    pause(0.0005)

        return run

    def consume():
        while True:
            item = q.get()
            if item is None:
                return
            seen.append(item)

    greenlets = [gevent.spawn(produce(("greenlet", n), gevent.sleep)) for n in range(producers)]
    readers = [gevent.spawn(consume) for _ in range(consumers)]
    stop_thread_readers = []

    def native_producers_then_stop():
        produce(("thread", 0), time.sleep)()

    def native_consume():
        consume()

    def stopper():
        while len(seen) < count * (producers + 2):
            gevent.sleep(0.001)
        for _ in range(consumers + 2):
            q.put(None)
        stop_thread_readers.append(1)

    stop = gevent.spawn(stopper)
    results = run_native(
        produce(("thread", 1), time.sleep),
        native_producers_then_stop,
        native_consume,
        native_consume,
        timeout=30,
    )
    gevent.joinall([*greenlets, *readers, stop], timeout=30, raise_error=True)
    assert len(seen) == len(set(seen)) == count * (producers + 2)
    # Each producer's items came out in the order in which it put them, as far as one reader saw.
    assert not any(made_hub for _, _, made_hub in results)
    assert q.empty() and not q.getters and not q.putters


@pytest.mark.ours
def test_queue_join_from_a_thread():
    q = queue.JoinableQueue()
    q.put(1)

    def finish():
        assert q.get() == 1
        gevent.sleep(0.01)
        q.task_done()

    gevent.spawn(finish)
    [(_, done, made_hub)] = run_native(q.join)
    assert done is True
    assert not made_hub


@pytest.mark.ours
def test_channel_between_a_thread_and_a_greenlet():
    channel = queue.Channel()
    got = gevent.spawn(lambda: [channel.get() for _ in range(20)])
    run_native(lambda: [channel.put(number) for number in range(20)])
    assert got.get(timeout=30) == list(range(20))

    sender = gevent.spawn(lambda: [channel.put(number) for number in range(20)])
    [(_, received, _)] = run_native(lambda: [channel.get() for _ in range(20)])
    assert received == list(range(20))
    sender.join(30)
    assert sender.successful()


@pytest.mark.ours
def test_shutdown_reaches_waiting_threads():
    q = queue.Queue()

    def wait():
        with pytest.raises(queue.ShutDown):
            q.get()
        return True

    gevent.spawn_later(0.02, q.shutdown)
    assert run_native(wait)[0][1] is True


@pytest.mark.ours
def test_what_does_not_wait_makes_no_hub():
    semaphore, lock, event, result, q = Semaphore(), RLock(), Event(), AsyncResult(), queue.Queue()

    def use():
        assert semaphore.acquire() and not semaphore.acquire(blocking=False)
        semaphore.release()
        with lock, lock:
            pass
        event.set()
        assert event.wait() and event.is_set()
        event.clear()
        result.set(3)
        assert result.get() == 3
        q.put(1)
        assert q.get() == 1
        with pytest.raises(queue.Empty):
            q.get_nowait()
        queue.Queue()
        return True

    assert run_native(use) == [("ok", True, False)]


def test_operations_that_need_not_wait_do_not_switch():
    semaphore, event, q = Semaphore(2), Event(), queue.Queue()
    ran = []
    gevent.spawn(ran.append, 1)
    with semaphore:
        semaphore.acquire(blocking=False)
        semaphore.release()
    q.put(1)
    q.get()
    event.set()
    event.wait()
    with pytest.raises(queue.Empty):
        q.get(block=False)
    assert not ran
    gevent.sleep(0)
    assert ran


@pytest.mark.ours
def test_finalizer_may_use_the_object_at_any_moment():
    q = queue.Queue()
    semaphore = Semaphore(1000)

    class Finalized:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            q.put("finalized")
            semaphore.acquire(blocking=False)
            semaphore.release()

    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(300):
            Finalized()
            q.put([])
            q.get()
            semaphore.acquire()
            semaphore.release()
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    while not q.empty():
        q.get()
    assert semaphore.counter == 1000


def test_killed_waiter_takes_nothing_with_it():
    semaphore = Semaphore(0)
    first, second = gevent.spawn(semaphore.acquire), gevent.spawn(semaphore.acquire)
    gevent.sleep(0)
    first.kill(block=False)
    semaphore.release()
    assert second.get(timeout=30) is True
    assert semaphore.counter == 0

    q = queue.Queue()
    first, second = gevent.spawn(q.get), gevent.spawn(q.get)
    gevent.sleep(0)
    first.kill(block=False)
    q.put("item")
    assert second.get(timeout=30) == "item"


@pytest.mark.ours
def test_permit_granted_by_a_thread_is_given_back():
    # The thread's release gives the permit to the first greenlet at once. The greenlet is killed
    # before it can run, and the second one must have it.
    semaphore = Semaphore(0)
    first, second = gevent.spawn(semaphore.acquire), gevent.spawn(semaphore.acquire)
    gevent.sleep(0)
    done = _thread.allocate_lock()
    done.acquire()
    first.kill(block=False)
    native(target=lambda: (semaphore.release(), done.release())).start()
    done.acquire()
    assert second.get(timeout=30) is True
    assert semaphore.counter == 0
    assert semaphore.linkcount() == 0


@pytest.mark.ours
def test_waiters_of_a_destroyed_hub_are_forgotten():
    semaphore = Semaphore(0)

    def leave_a_waiter_behind():
        gevent.spawn(semaphore.acquire)
        gevent.sleep(0)
        gevent.get_hub().destroy(destroy_loop=True)

    run_native(leave_a_waiter_behind)
    waiter = gevent.spawn(semaphore.acquire)
    gevent.sleep(0)
    semaphore.release()
    assert waiter.get(timeout=30) is True


def test_objects_can_be_weakly_referenced_and_collected():
    for kind in (Event, AsyncResult, Semaphore, RLock, queue.Queue, queue.Channel):
        one = kind()
        reference = weakref.ref(one)
        del one
        assert reference() is None


class Slow:
    """Compares in Python, and lets other threads run in the middle."""

    def __init__(self, key, use=None):
        self.key = key
        self.use = use

    def __lt__(self, other):
        if self.use is not None:
            self.use()
        time.sleep(0)
        return self.key < other.key


def test_a_priority_queue_that_compares_in_python_stays_a_heap_between_threads():
    q = queue.PriorityQueue()
    keys = [(n * 7919) % 400 for n in range(400)]

    def put(part):
        for key in part:
            q.put(Slow(key))

    threads = [threading.Thread(target=put, args=(keys[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [q.get().key for _ in keys] == sorted(keys)


def test_a_comparison_may_use_its_queue():
    q = queue.PriorityQueue()
    sizes = []
    q.put(Slow(2))
    q.put(Slow(1, use=lambda: sizes.append((q.qsize(), q.peek().key))))
    assert sizes and [q.get().key, q.get().key] == [1, 2]


def test_a_comparison_that_fails_leaves_the_queue_usable_by_other_threads():
    q = queue.PriorityQueue()
    q.put(1)
    with pytest.raises(TypeError):
        q.put("one")
    done = []
    thread = threading.Thread(target=lambda: done.append(q.get(timeout=30)))
    thread.start()
    thread.join(20)
    assert len(done) == 1


class Pausing(queue.Queue):
    """Switches in the middle of a put."""

    def __init__(self):
        super().__init__()
        self.in_put, self.go_on = threading.Event(), threading.Event()

    def _put(self, item):
        self.in_put.set()
        while not self.go_on.is_set():
            gevent.sleep(0.01)
        super()._put(item)


def test_a_thread_that_ends_in_the_middle_of_a_put_leaves_the_queue_to_others():
    q = Pausing()

    def run():
        gevent.spawn(q.put, 1)
        while not q.in_put.is_set():
            gevent.sleep(0.01)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    with pytest.raises(queue.Empty):
        q.get_nowait()


def test_a_put_that_switches_in_the_middle_keeps_no_other_thread_waiting():
    q = Pausing()
    thread = threading.Thread(target=q.put, args=(1,))
    thread.start()
    assert q.in_put.wait(30)
    with pytest.raises(queue.Empty):
        q.get_nowait()
    assert thread.is_alive()
    q.go_on.set()
    assert q.get(timeout=30) == 1
    thread.join(20)


def held_by_a_thread(q, entered, leave):
    """Return a thread that compares an item of *q*, without a switch, until it may leave."""

    def compare():
        entered.set()
        leave.wait(20)

    q.put(Slow(1))
    thread = threading.Thread(target=q.put, args=(Slow(0, use=compare),))
    thread.start()
    assert entered.wait(20)
    return thread


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_while_another_thread_compares_leaves_the_child_its_queue():
    q, leave = queue.PriorityQueue(), threading.Event()
    thread = held_by_a_thread(q, threading.Event(), leave)
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)
        q.put(Slow(3))
        os._exit(7)
    leave.set()
    thread.join(20)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


@pytest.mark.ours
def test_a_signal_is_handled_while_a_thread_waits_for_its_turn():
    q, leave = queue.PriorityQueue(), threading.Event()
    thread = held_by_a_thread(q, threading.Event(), leave)
    before = signal.signal(signal.SIGALRM, lambda *args: 1 / 0)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(ZeroDivisionError):
            q.put(Slow(3))
    finally:
        signal.signal(signal.SIGALRM, before)
        leave.set()
    thread.join(20)
    assert q.qsize() == 2


def test_who_sends_need_not_know_that_nobody_listens():
    waker = gevent.get_hub().loop.async_()
    waker.start(lambda: None)
    waker.stop()
    waker.close()
    waker.send()
    thread = threading.Thread(target=waker.send)
    thread.start()
    thread.join()
