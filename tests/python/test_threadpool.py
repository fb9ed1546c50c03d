"""Thread pools: tasks, errors, sizes, forks, and who is woken when."""

import concurrent.futures
import gc
import io
import os
import subprocess
import sys
import threading
import time
import traceback
import weakref

import gevent
import pytest
from gevent import monkey
from gevent._threading import EmptyTimeout, Queue, start_new_thread
from gevent.event import Event
from gevent.exceptions import InvalidThreadUseError
from gevent.threadpool import ThreadPool, ThreadPoolExecutor


@pytest.fixture
def pool():
    pool = ThreadPool(3)
    yield pool
    pool.kill()


native_sleep = monkey.get_original("time", "sleep")
native_ident = monkey.get_original("_thread", "get_ident")


def fail(message):
    raise ValueError(message)


def test_tasks_run_in_other_threads(pool):
    assert pool.apply(native_ident) != native_ident()
    assert pool.apply(divmod, (7, 2)) == pool.apply(divmod, [7, 2]) == (3, 1)
    assert pool.apply(int, ("11",), {"base": 2}) == 3
    assert pool.spawn(int, "12", base=3).get() == 5
    assert pool.map(abs, [-1, -2, -3, -4]) == [1, 2, 3, 4]
    assert pool.apply_async(abs, (-3,)).get() == 3
    got = []
    pool.apply_cb(abs, (-5,), callback=got.append)
    assert got == [5] and len(pool) == 0 and not pool


def test_errors_keep_their_traceback(pool, quiet):
    for call in (lambda: pool.apply(fail, ("one",)), lambda: pool.spawn(fail, "one").get()):
        with pytest.raises(ValueError, match="one") as info:
            call()
        names = [frame.name for frame in traceback.extract_tb(info.value.__traceback__)]
        assert "fail" in names
    assert pool.apply(abs, (-1,)) == 1


def test_errors_are_printed_by_the_hub(pool, quiet):
    gevent.get_hub().exception_stream = stream = io.StringIO()
    with pytest.raises(ValueError):
        pool.apply(fail, ("seen",))
    err = stream.getvalue()
    assert "ValueError: seen" in err and "ThreadPoolWorker" in err


def test_greenlets_go_on_while_a_task_runs(pool):
    done = threading.Event()
    other = gevent.spawn(lambda: [gevent.sleep(0.001) for _ in range(5)] and done.set())
    assert pool.apply(done.wait, (30,))
    other.join()


def test_a_task_starts_though_its_greenlet_is_not_the_next_to_run(pool):
    # The caller of apply blocks while another greenlet keeps the processor.
    started = []
    pool.apply(abs, (1,))

    def hog():
        until = time.monotonic() + 30
        while not started and time.monotonic() < until:
            pass
        return bool(started)

    caller = gevent.spawn(pool.apply, started.append, (1,))
    assert gevent.spawn(hog).get(), "the task waited for a greenlet"
    caller.join()


def test_killed_waiters_leave_the_pool_sound(pool):
    waiters = [gevent.spawn(pool.apply, native_sleep, (0.02,)) for _ in range(9)]
    gevent.sleep(0.001)
    gevent.killall(waiters)
    assert pool.apply(abs, (-1,)) == 1
    pool.join()
    assert len(pool) == 0


def test_timeouts(pool):
    over = threading.Event()
    result = pool.spawn(over.wait, 30)
    with pytest.raises(gevent.Timeout):
        result.get(timeout=0.001)
    over.set()
    assert result.get() is True


def test_more_tasks_than_threads_wait_their_turn(pool):
    running, most = [], []

    def task(n):
        running.append(n)
        most.append(len(running))
        native_sleep(0.001)
        running.remove(n)
        return n

    assert sorted(pool.imap_unordered(task, range(30))) == list(range(30))
    assert max(most) <= 3 and pool.size <= 3


def test_sizes(pool):
    assert (pool.size, pool.maxsize) == (0, 3)
    pool.size = 2
    assert pool.size == 2
    with pytest.raises(ValueError, match="bigger than maxsize"):
        pool.size = 4
    with pytest.raises(ValueError, match="negative"):
        pool.size = -1
    with pytest.raises(TypeError):
        pool.maxsize = "3"
    pool.maxsize = 5
    assert sorted(pool.map(abs, range(5))) == [0, 1, 2, 3, 4]
    pool.maxsize = 1
    with gevent.Timeout(20):
        while pool.size > 1:
            gevent.sleep(0.001)
    assert pool.apply(abs, (-1,)) == 1
    pool.size = 0
    assert pool.size == 0 and pool.apply(abs, (-2,)) == 2


def test_a_killed_pool_can_be_used_again():
    pool = ThreadPool(2)
    assert pool.apply(abs, (-1,)) == 1
    pool.kill()
    pool.kill()
    assert pool.size == 0
    assert pool.spawn(abs, -2).get(timeout=30) == 2
    pid = gevent.fork()
    if not pid:
        os._exit(pool.apply(abs, (-3,)))
    assert os.waitstatus_to_exitcode(gevent.os.waitpid(pid, 0)[1]) == 3
    pool.kill()


def test_idle_threads_end():
    pool = ThreadPool(2, idle_task_timeout=0.01)
    try:
        pool.map(native_sleep, [0.001] * 2)
        with gevent.Timeout(20):
            while pool.size:
                gevent.sleep(0.005)
        assert pool.apply(abs, (-1,)) == 1
    finally:
        pool.kill()


def test_other_threads_may_not_spawn(pool, quiet):
    with pytest.raises(InvalidThreadUseError):
        pool.apply(pool.spawn, (abs, 1))
    # But apply calls the function where it is.
    assert pool.apply(pool.apply, (native_ident,)) != native_ident()


def test_tasks_may_use_a_hub_of_their_own(pool):
    def task():
        gs = [gevent.spawn(gevent.sleep, 0.001) for _ in range(3)]
        gevent.joinall(gs)
        return all(g.successful() for g in gs)

    assert pool.apply(task)
    assert pool.apply(task)


class Marked:
    pass


def test_nothing_is_kept(pool):
    argument = Marked()
    refs = [weakref.ref(argument)]

    def task(argument):
        result = Marked()
        refs.append(weakref.ref(result))
        return result

    result = pool.spawn(task, argument)
    assert isinstance(result.get(), Marked)
    del argument, result
    with gevent.Timeout(20):
        while any(ref() is not None for ref in refs):
            gevent.sleep(0.001)
            gc.collect()


def test_results_keep_the_loop_running(pool):
    result = pool.spawn(native_sleep, 0.02)
    assert gevent.wait([result]) == [result]


@pytest.mark.ours
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_begins_anew(pool):
    # Upstream does so in the loop's next iteration, and forgets what was spawned before.
    hub_pool = gevent.get_hub().threadpool
    assert pool.apply(abs, (-1,)) == hub_pool.apply(abs, (-1,)) == 1
    busy = pool.spawn(native_sleep, 0.05)
    pid = gevent.os.fork()
    if not pid:
        code = 1
        try:
            with gevent.Timeout(20):
                gevent.sleep(0.001)
                if pool.apply(abs, (-2,)) == 2 and hub_pool.apply(abs, (-3,)) == 3:
                    code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert gevent.os.waitpid(pid, 0)[1] == 0
    busy.get()


def test_executor(quiet):
    with ThreadPoolExecutor(2) as executor:
        futures = [executor.submit(pow, 2, n) for n in range(5)]
        assert [f.result() for f in futures] == [1, 2, 4, 8, 16]
        assert sorted(executor.map(abs, [-1, -2])) == [1, 2]
        failed = executor.submit(fail, "expected")
        with pytest.raises(ValueError, match="expected"):
            failed.result()
        over = threading.Event()
        slow = executor.submit(over.wait, 30)
        with pytest.raises(concurrent.futures.TimeoutError):
            slow.result(timeout=0.001)
        assert not slow.cancel() and not slow.cancelled()
        over.set()
        called = []
        slow.add_done_callback(called.append)
        slow.result()
        gevent.sleep(0)
        assert called == [slow]
        assert set(gevent.wait(futures)) == set(futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)


@pytest.mark.ours
def test_a_futures_exception(quiet):
    # Upstream raises it.
    with ThreadPoolExecutor(1) as executor:
        assert isinstance(executor.submit(fail, "expected").exception(), ValueError)
        assert executor.submit(abs, 1).exception() is None
        over = threading.Event()
        with pytest.raises(concurrent.futures.TimeoutError):
            executor.submit(over.wait, 30).exception(timeout=0.001)
        over.set()


def test_hooks_are_those_of_threading(pool):
    seen = []

    def traced(n):
        return n + 1

    threading.setprofile(lambda frame, event, arg: seen.append(frame.f_code.co_name))
    try:
        assert pool.apply(traced, (1,)) == 2
    finally:
        threading.setprofile(None)
    assert "traced" in seen
    assert pool.apply(sys.getprofile) is None


def test_the_native_queue():
    queue = Queue()
    assert queue.empty() and not queue.full() and queue.qsize() == 0
    cookie = queue.allocate_cookie()
    queue.put(1)
    queue.put(2)
    assert queue.qsize() == 2 and queue.unfinished_tasks == 2
    assert [queue.get(cookie), queue.get(cookie, timeout=1)] == [1, 2]
    with pytest.raises(EmptyTimeout):
        queue.get(cookie, 0)
    with pytest.raises(EmptyTimeout):
        queue.get(cookie, timeout=0.001)
    queue.task_done()
    queue.task_done()
    with pytest.raises(ValueError, match="called too many times"):
        queue.task_done()
    got, done = [], Event()

    def worker():
        while (item := queue.get(queue.allocate_cookie(), -1)) is not None:
            got.append(item)
        got.append("end")
        done.set()

    for _ in range(3):
        start_new_thread(worker, ())
    for n in range(100):
        queue.put(n)
    for _ in range(3):
        queue.put(None)
    with gevent.Timeout(20):
        while got.count("end") < 3:
            gevent.sleep(0.001)
    assert sorted(n for n in got if n != "end") == list(range(100))
    assert done.wait(20)


def test_a_queue_that_was_killed():
    queue = Queue()
    queue.put(1)
    queue.kill()
    assert queue.unfinished_tasks is None


# Run in a process of its own, in which nothing that an error needs was imported before.
WITHOUT_DESCRIPTORS = """
import os, resource
import gevent
pool = gevent.get_hub().threadpool
assert pool.apply(abs, (-1,)) == 1
used = len(os.listdir("/proc/self/fd")) - 1
before = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (used, before[1]))
results = [pool.spawn(os.listdir, "/nowhere"), pool.spawn(divmod, 1, 0)]
greenlet = gevent.spawn(divmod, 1, 0)
gevent.wait([*results, greenlet], timeout=20)
resource.setrlimit(resource.RLIMIT_NOFILE, before)
for result in [*results, greenlet]:
    try:
        result.get(timeout=20)
    except (OSError, ZeroDivisionError) as error:
        print(type(error).__name__)
"""


@pytest.mark.ours
def test_errors_arrive_where_no_descriptor_is_left():
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_DESCRIPTORS], capture_output=True, text=True, timeout=50
    )
    assert done.stdout.split() == ["OSError", "ZeroDivisionError", "ZeroDivisionError"], (
        done.stdout + done.stderr
    )


@pytest.mark.ours
def test_a_result_arrives_though_the_hub_fails_to_report_its_error(monkeypatch):
    class Fails(Exception):
        pass

    reported = []

    def handle_error(context, *exc_info):
        reported.append(exc_info[0])
        if exc_info[0] is ZeroDivisionError:
            raise Fails

    hub = gevent.get_hub()
    monkeypatch.setattr(hub, "handle_error", handle_error)
    with pytest.raises(ZeroDivisionError), gevent.Timeout(20):
        hub.threadpool.spawn(divmod, 1, 0).get()
    gevent.sleep(0)
    assert reported == [ZeroDivisionError, Fails]
