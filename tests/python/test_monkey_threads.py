"""Programs full of threads, patched: pools, queues, logging, barriers, timers, and how they end."""

import sys

import pytest

from scripts import lines_of

HEAD = """
from gevent import monkey
monkey.patch_all()
import atexit, concurrent.futures, logging, logging.handlers, queue, sys, threading, time
"""


def test_executors():
    assert lines_of(
        HEAD
        + """
with concurrent.futures.ThreadPoolExecutor(100) as executor:
    # None goes on before all have begun.
    together = threading.Barrier(100)
    futures = [executor.submit(lambda n=n: (together.wait(20), n)[1]) for n in range(100)]
    done = concurrent.futures.as_completed(futures, timeout=20)
    print(sorted(future.result() for future in done) == list(range(100)))
    print(list(executor.map(str, range(3))))
    failing = executor.submit(lambda: 1 / 0)
    print(type(failing.exception()).__name__)
    over = threading.Event()
    slow = executor.submit(over.wait)
    try:
        slow.result(timeout=0.01)
    except concurrent.futures.TimeoutError:
        print("timed out")
    over.set()
executor = concurrent.futures.ThreadPoolExecutor(2)
pending = [executor.submit(time.sleep, 0.01) for _ in range(50)]
executor.shutdown(wait=False, cancel_futures=True)
print(any(future.cancelled() for future in pending))
# Left running at the end: the interpreter waits for it.
last = concurrent.futures.ThreadPoolExecutor(1)
last.submit(lambda: (time.sleep(0.05), print("last", flush=True)))
"""
    ) == ["True", "['0', '1', '2']", "ZeroDivisionError", "timed out", "True", "last"]


def test_queues_between_many():
    assert lines_of(
        HEAD
        + """
tasks, results = queue.Queue(10), queue.SimpleQueue()
def work():
    while (n := tasks.get()) is not None:
        results.put(n * 2)
        tasks.task_done()
    tasks.task_done()
threads = [threading.Thread(target=work, name=f"worker-{n}") for n in range(200)]
for thread in threads: thread.start()
print(threading.active_count(), len({thread.ident for thread in threads}))
for n in range(2000): tasks.put(n)
for _ in threads: tasks.put(None)
tasks.join()
for thread in threads: thread.join(30)
print(any(thread.is_alive() for thread in threads), threading.active_count())
print(sum(results.get() for _ in range(2000)), results.empty())
for kind in (queue.LifoQueue, queue.PriorityQueue):
    q = kind()
    for n in (2, 3, 1): q.put(n)
    print([q.get() for _ in range(3)])
try:
    queue.Queue().get(timeout=0.01)
except queue.Empty:
    print("empty")
"""
    ) == [
        "201 200",
        "False 1",
        "3998000 True",
        "[1, 3, 2]",
        "[1, 2, 3]",
        "empty",
    ]


def test_barriers_conditions_timers():
    assert lines_of(
        HEAD
        + """
barrier, order = threading.Barrier(20), []
def meet(n):
    time.sleep(0.001 * (n % 5))
    order.append("before")
    barrier.wait(10)
    order.append("after")
threads = [threading.Thread(target=meet, args=(n,)) for n in range(20)]
for t in threads: t.start()
for t in threads: t.join()
print(order.index("after"), len(order))

condition, ready = threading.Condition(), []
def wait():
    with condition:
        return_value.append(condition.wait_for(lambda: ready, timeout=10))
return_value = []
threads = [threading.Thread(target=wait) for _ in range(10)]
for t in threads: t.start()
time.sleep(0.01)
with condition:
    ready.append(1)
    condition.notify_all()
for t in threads: t.join()
print(all(return_value), len(return_value))

fired = threading.Event()
timer = threading.Timer(0.01, fired.set); timer.start()
print(fired.wait(10))
never = threading.Timer(10, print, ["never"]); never.start(); never.cancel(); never.join()

local, seen = threading.local(), set()
def use(n):
    local.n = n
    time.sleep(0.001)
    seen.add(local.n == n)
threads = [threading.Thread(target=use, args=(n,)) for n in range(50)]
for t in threads: t.start()
for t in threads: t.join()
print(seen, hasattr(local, "n"))

limit, most, now = threading.BoundedSemaphore(3), 0, 0
def enter():
    global most, now
    with limit:
        now += 1
        most = max(most, now)
        time.sleep(0.001)
        now -= 1
threads = [threading.Thread(target=enter) for _ in range(20)]
for t in threads: t.start()
for t in threads: t.join()
print(most)
try:
    limit.release()
except ValueError:
    print("released too often")
lock = threading.RLock()
with lock, lock:
    other = []
    thread = threading.Thread(target=lambda: other.append(lock.acquire(blocking=False)))
    thread.start(); thread.join()
print(other)
"""
    ) == ["20 40", "True 10", "True", "{True} False", "3", "released too often", "[False]"]


def test_failures_and_the_end():
    done = lines_of(
        HEAD
        + """
threading.excepthook = lambda args: print("hook", args.exc_type.__name__, args.thread.name)
thread = threading.Thread(target=lambda: 1 / 0, name="failing")
thread.start(); thread.join()
try:
    thread.start()
except RuntimeError as ex:
    print(ex)
def daemon():
    try:
        time.sleep(60)
    finally:
        print("never shown")
threading.Thread(target=daemon, daemon=True).start()
atexit.register(print, "atexit")
threading.Thread(target=lambda: (time.sleep(0.03), print("thread ends"))).start()
print("main ends", threading.current_thread() is threading.main_thread())
"""
    )
    # A daemon's greenlet may be collected when all else is gone, which runs its `finally`.
    assert [line for line in done if line != "never shown"] == [
        "hook ZeroDivisionError failing",
        "threads can only be started once",
        "main ends True",
        "thread ends",
        "atexit",
    ]


@pytest.mark.ours  # upstream hangs when a native thread releases the lock
@pytest.mark.parametrize("early", [True, False], ids=["before", "after"])
def test_logging_from_many(early):
    """Handlers that were made before or after the patch, used by greenlets and native threads."""
    prepare = """
import logging, logging.handlers, queue, sys
def prepare():
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(threadName)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
"""
    order = "prepare()\n" if early else ""
    later = "" if early else "prepare()\n"
    lines = lines_of(
        prepare
        + order
        + HEAD
        + later
        + """
import gevent
def log(n):
    for turn in range(5):
        logging.info("%d.%d", n, turn)
        time.sleep(0.001)
threads = [threading.Thread(target=log, args=(n,), name=f"t{n}") for n in range(30)]
for t in threads: t.start()
pool = gevent.get_hub().threadpool
natives = [pool.spawn(lambda n=n: [logging.info("native %d.%d", n, t) for t in range(5)])
           for n in range(5)]
for t in threads: t.join()
gevent.joinall(natives)
"""
    )
    said = sorted(line.split(" ", 1)[1] for line in lines)
    assert said == sorted(
        [f"{n}.{turn}" for n in range(30) for turn in range(5)]
        + [f"native {n}.{turn}" for n in range(5) for turn in range(5)]
    )
    assert sum(line == f"t{n} {n}.{turn}" for n in range(30) for turn in range(5) for line in lines)


@pytest.mark.ours  # upstream prints a KeyError and lists the thread for ever
@pytest.mark.skipif(sys.version_info < (3, 11), reason="3.10 keeps it in the list, in silence")
def test_a_thread_from_before_the_patch_ends_in_silence():
    assert lines_of("""
        import threading, warnings

        over, end = threading.Event(), threading.Event()
        threads = [threading.Thread(target=event.wait) for event in (over, end)]
        for thread in threads:
            thread.start()

        warnings.simplefilter("ignore")
        from gevent import monkey
        monkey.patch_all()

        print(threading.active_count())
        over.set()
        threads[0].join()
        print(threading.active_count(), threads[0].is_alive())
        end.set()
        """) == ["3", "2 False"]
