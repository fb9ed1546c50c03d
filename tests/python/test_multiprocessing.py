"""`multiprocessing` with everything patched: pools, queues, pipes, locks, managers, executors."""

import os
import subprocess
import sys
import textwrap

import pytest

from scripts import lines_of

pytestmark = pytest.mark.ours  # upstream's pools hang, and its children run the parent's greenlets

SCALE = float(os.environ.get("TIME_SCALE") or 1)
HOWS = ["fork", "spawn", "forkserver"]

HEAD = """
from gevent import monkey
monkey.patch_all()
import concurrent.futures, multiprocessing, os, sys, threading, time
import gevent

def square(x):
    return x * x

def whose(_):
    time.sleep(0.005)
    return os.getpid()

ticks = []
def tick():
    while True:
        ticks.append(1)
        time.sleep(0.002)
"""


@pytest.fixture
def script(tmp_path):
    """Runs a program whose ``main(ctx)`` is given; returns the lines that it prints."""

    def run(source, how, **env):
        path = tmp_path / "program.py"
        path.write_text(
            HEAD
            + textwrap.dedent(source)
            + "\nif __name__ == '__main__':\n"
            + f"    gevent.spawn(tick)\n    main(multiprocessing.get_context({how!r}))\n"
        )
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", path],
            capture_output=True,
            text=True,
            timeout=50 * SCALE,
            env={**os.environ, **env},
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout.splitlines()

    return run


@pytest.mark.parametrize("how", HOWS)
def test_pool(script, how):
    assert script(
        """
        def main(ctx):
            with ctx.Pool(2) as pool:
                print(sum(pool.map(square, range(500))))
                print(sorted(pool.imap_unordered(square, range(4))))
                print(pool.apply_async(square, (7,)).get(20))
                before = len(ticks)
                print(pool.apply(time.sleep, (0.2,)), len(ticks) > before + 5)
                got = [gevent.spawn(pool.apply, square, (n,)) for n in range(20)]
                gevent.joinall(got, raise_error=True)
                print(sum(g.value for g in got))
            with ctx.Pool(2, maxtasksperchild=2) as pool:
                print(len(set(pool.map(whose, range(8), chunksize=1))) >= 3)
                pool.close()
                pool.join()
        """,
        how,
    ) == ["41541750", "[0, 1, 4, 9]", "49", "None True", "2470", "True"]


@pytest.mark.parametrize("how", HOWS)
def test_pipes_and_queues(script, how):
    assert script(
        """
        def echo(conn):
            while (data := conn.recv_bytes()) != b"end":
                conn.send_bytes(data)

        def work(tasks, results, go, changed):
            go.wait()
            while (n := tasks.get()) is not None:
                results.put(n + 1)
            with changed:
                changed.notify_all()

        def main(ctx):
            here, there = ctx.Pipe()
            child = ctx.Process(target=echo, args=(there,))
            child.start()
            data = os.urandom(3_000_000)
            sender = gevent.spawn(here.send_bytes, data)
            print(here.recv_bytes() == data, sender.ready(), here.poll(0.01), len(ticks) > 3)
            here.send_bytes(b"end")
            child.join(20)
            print(child.exitcode)

            tasks, results, go, changed = ctx.Queue(), ctx.Queue(3), ctx.Event(), ctx.Condition()
            args = (tasks, results, go, changed)
            children = [ctx.Process(target=work, args=args) for _ in range(2)]
            for child in children: child.start()
            gevent.spawn_later(0.05, go.set)
            getters = [gevent.spawn(results.get) for _ in range(50)]
            for n in range(50): tasks.put(n)
            gevent.joinall(getters, raise_error=True)
            print(sorted(g.value for g in getters) == list(range(1, 51)))
            def wait():
                with changed: return changed.wait(20)
            waiter = gevent.spawn(wait)
            while not waiter.started or not changed._sleeping_count._semlock._get_value():
                time.sleep(0.01)
            for child in children: tasks.put(None)
            print(waiter.get(timeout=30))
            for child in children: child.join(20)
            print([child.exitcode for child in children])
        """,
        how,
    ) == ["True True False True", "0", "True", "True", "[0, 0]"]


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_executors_and_managers(script, how):
    assert script(
        """
        def main(ctx):
            with concurrent.futures.ProcessPoolExecutor(2, mp_context=ctx) as executor:
                print(sum(executor.map(square, range(50))))
            with ctx.Manager() as manager:
                shared = manager.dict()
                def use(n): shared[n] = n
                gevent.joinall([gevent.spawn(use, n) for n in range(20)], raise_error=True)
                print(sum(shared.values()))
        """,
        how,
    ) == ["40425", "190"]


def test_locks_between_greenlets(script):
    assert script(
        """
        def main(ctx):
            order = []
            def use(lock, n):
                with lock:
                    order.append(n)
                    time.sleep(0.005)
                    order.append(n)
            for kind in (ctx.Lock, ctx.RLock, ctx.Semaphore):
                lock = kind()
                gevent.joinall([gevent.spawn(use, lock, n) for n in range(4)], raise_error=True)
                print(order[::2] == order[1::2], len(order))
                del order[:]
            again = ctx.RLock()
            with again, again:
                pass
            lock = ctx.Lock()
            print(lock.acquire(), lock.acquire(False), lock.acquire(timeout=0.02))
            with gevent.Timeout(0.05, False):
                lock.acquire()
            lock.release()
            print(lock.acquire(timeout=1))
        """,
        "fork",
    ) == ["True 8", "True 8", "True 8", "True False False", "True"]


def test_the_parents_greenlets_stay_in_the_parent(script):
    """The child has one connection's worth of neighbours, none of which may run there."""
    assert script(
        """
        def child(queue):
            time.sleep(0.1)
            queue.put(len(ticks) - before)

        def main(ctx):
            global before
            queue = ctx.SimpleQueue()
            time.sleep(0.02)
            def loop():
                gevent.get_hub().loop.timer(0.001, 0.001).start(ticks.append, 1)
            loop()
            gevent.spawn_later(0.05, ticks.append, 1)
            def start():
                global before
                before = len(ticks)
                process = ctx.Process(target=child, args=(queue,))
                process.start()
                process.join()
                return process.exitcode
            print(gevent.spawn(start).get(), queue.get())
        """,
        "fork",
    ) == ["0 0"]


def test_a_connection_may_be_made_of_anything():
    assert lines_of("""
        from gevent import monkey; monkey.patch_all()
        from multiprocessing.connection import Connection

        connection = Connection(44977608)
        try:
            connection.send(1)
        except OSError as ex:
            print(ex.errno)
        connection._handle = None
        """) == ["9"]
