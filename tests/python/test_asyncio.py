"""asyncio in greenlets: its running loop and current task are a greenlet's, not the thread's."""

import asyncio
import threading

import gevent
import gevent.pool
import greenlet
import pytest
from gevent import queue
from gevent.threadpool import ThreadPool


def running():
    try:
        return asyncio.get_running_loop(), asyncio.current_task()
    except RuntimeError:
        return None


async def steps(number, log, pause):
    me = running()
    assert me is not None and None not in me
    for step in range(3):
        log.append((number, step))
        pause()
        assert running() == me
        await asyncio.sleep(0.001)
        assert running() == me
    return number


def run(*args):
    return asyncio.run(steps(*args))


@pytest.mark.ours
@pytest.mark.parametrize("pause", [0, 0.001])
def test_loops_in_two_greenlets_at_once(pause):
    log = []
    gs = [gevent.spawn(run, n, log, lambda: gevent.sleep(pause)) for n in range(3)]
    assert [g.get() for g in gs] == [0, 1, 2]
    assert sorted(log) == [(n, step) for n in range(3) for step in range(3)]
    assert log != sorted(log), "they did not run at once"
    assert running() is None


@pytest.mark.ours
def test_a_loop_in_the_main_greenlet_is_not_anothers():
    seen = []

    async def main():
        me = running()
        await asyncio.sleep(0)
        gevent.spawn(lambda: seen.append(running())).join()
        gevent.get_hub().loop.run_callback(lambda: seen.append(running()))
        gevent.sleep(0.001)
        seen.append(gevent.spawn(run, 5, [], lambda: gevent.sleep(0)).get())
        assert running() == me

    asyncio.run(main())
    assert seen == [None, None, 5]


def test_raw_greenlets_have_their_parents_loop():
    # As SQLAlchemy has blocking code awaited by the greenlet's parent.
    async def answer(n):
        await asyncio.sleep(0.001)
        return n + 1

    def blocking(loops):
        parent = greenlet.getcurrent().parent
        loops.append(running()[0])
        got = parent.switch(answer(1))
        loops.append(running()[0])
        return parent.switch(answer(got))

    async def main():
        loops = []
        child = greenlet.greenlet(blocking)
        result = child.switch(loops)
        while not child.dead:
            result = child.switch(await result)
        assert loops == [asyncio.get_running_loop()] * 2
        return result

    assert asyncio.run(main()) == 3


@pytest.mark.ours
def test_killed_in_the_middle():
    ended = []

    async def forever():
        try:
            while True:
                gevent.sleep(0.001)
                await asyncio.sleep(0)
        finally:
            ended.append(running() is not None)

    g = gevent.spawn(lambda: asyncio.run(forever()))
    gevent.sleep(0.005)
    g.kill()
    assert g.dead and ended == [True] and running() is None
    assert run(1, [], lambda: None) == 1


@pytest.mark.ours
def test_a_timeout_ends_one_of_two():
    def limited():
        with gevent.Timeout(0.005, False):
            run(0, [], lambda: gevent.sleep(1))
            return "not reached"
        assert running() is None
        return run(1, [], lambda: gevent.sleep(0))

    gs = [gevent.spawn(limited), gevent.spawn(run, 2, [], lambda: gevent.sleep(0.004))]
    assert [g.get() for g in gs] == [1, 2]


@pytest.mark.ours
def test_loops_that_talk():
    to, back = queue.Queue(), queue.Queue()

    async def asks():
        got = []
        for n in range(5):
            to.put(n)
            got.append(back.get())
            await asyncio.sleep(0)
            assert running() is not None
        to.put(None)
        return got

    async def answers():
        while (n := to.get()) is not None:
            await asyncio.sleep(0.0005)
            back.put(n * 10)

    first, second = (gevent.spawn(lambda f=f: asyncio.run(f())) for f in (asks, answers))
    assert first.get() == [0, 10, 20, 30, 40]
    second.get()


def test_threads_have_their_own():
    def task():
        return run(1, [], lambda: gevent.sleep(0.001))

    pool = ThreadPool(2)
    try:
        assert pool.map(lambda _: task(), range(4)) == [1] * 4
    finally:
        pool.kill()
    got = []
    thread = threading.Thread(target=lambda: got.append(task()))
    thread.start()
    thread.join()
    assert got == [1]


@pytest.mark.ours
def test_many_loops():
    def task(n):
        return run(n, [], lambda: gevent.sleep(0.0001 * (n % 3)))

    assert gevent.pool.Pool(20).map(task, range(60)) == list(range(60))
    assert running() is None
