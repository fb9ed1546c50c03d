"""Everything that can be made is made and dropped, over and over: nothing may be left of it.

    cycles.py [--loop NAME] [--quick] [--only TEXT] [--cycles N] [--seconds S]

Each kind does N cycles (20,000), or as many as go into S seconds. After a warm-up the rest is cut
into equal windows. A kind fails if the last three of them have each left something behind:
descriptors, greenlets, objects that the collector knows, blocks of Python's allocator, or memory.
"""

from __future__ import annotations

import gc
import os
import pathlib
import sys
import time
import urllib.parse

import common
import itertools

WINDOWS = 5
#: What one window may leave behind: so many, and so many a cycle.
ALLOWED = {
    "descriptors": (0, 0),
    "threads": (0, 0),
    "greenlets": (0, 0),
    "objects": (3, 0.02),
    "blocks": (30, 0.05),
    "resident KiB": (96, 0.02),
}
#: How many of its own cycles a kind counts for: a child process costs as much as many switches.
KINDS = {}


def kind(cost=1):
    def add(function):
        KINDS[function.__name__] = (function, cost)
        return function

    return add


def define() -> None:
    """The kinds. Here, since all of it is patched first."""
    import socket

    import gevent
    import gevent.core
    import greenlet
    import work
    from gevent import event, local, lock, pool, queue
    from gevent.threadpool import ThreadPool

    for name in work.ALL:
        costs = {"tls": 60, "wsgi_tls": 30, "processes": 20, "forks": 20, "echo": 10, "threads": 10}
        KINDS[name] = (work.ALL[name], costs.get(name, 5))

    def parked(wait):
        g = gevent.spawn(wait)
        gevent.sleep(0)
        return g

    @kind()
    def spawn():
        work.same(gevent.spawn(abs, -1).get(), 1, "spawn")
        gevent.spawn_raw(abs, -1)
        gevent.sleep(0)

    @kind()
    def spawn_later():
        gevent.spawn_later(0, abs, -1).join()
        gevent.spawn_later(60, abs, -1).kill()

    @kind()
    def fails():
        g = gevent.spawn(int, "x")
        g.join()
        assert isinstance(g.exception, ValueError)

    @kind()
    def links():
        told = event.AsyncResult()
        g = gevent.spawn(abs, -1)
        g.link(told)
        g.link_exception(told)
        g.unlink(abs)
        assert told.get() == 1

    @kind()
    def kill():
        for wait in (event.Event().wait, queue.Queue().get, lock.Semaphore(0).acquire):
            parked(wait).kill()
        gevent.killall([gevent.spawn(gevent.sleep, 60) for _ in range(3)])

    @kind()
    def timeouts():
        with gevent.Timeout(0, False):
            gevent.sleep(60)
        gevent.Timeout.start_new(60).close()
        gevent.with_timeout(60, abs, -1)

    @kind()
    def raw_greenlets():
        def back(*args):
            return greenlet.getcurrent().parent.switch(*args)

        child = greenlet.greenlet(back)
        child.switch(1)
        child.throw()
        greenlet.greenlet(back).switch()

    @kind()
    def locals():
        mine = local.local()

        def use():
            mine.number = [1]

        gevent.spawn(use).get()
        use()

    @kind()
    def pools():
        group = pool.Pool(2)
        assert group.map(abs, [-1, -2, -3]) == [1, 2, 3]
        group.spawn(gevent.sleep, 60)
        group.kill()

    @kind()
    def imap():
        group = pool.Pool(2)
        assert list(group.imap(abs, [-1, -2])) == [1, 2]
        assert sorted(group.imap_unordered(abs, [-1, -2])) == [1, 2]
        next(group.imap(abs, [-1, -2, -3]))

    @kind()
    def queues():
        for made in (queue.Queue(1), queue.PriorityQueue(1), queue.LifoQueue(1)):
            g = parked(made.get)
            made.put(1)
            made.put(2)
            assert g.get() == 1
            g = parked(lambda: made.put(3))  # noqa: B023
            assert made.get() == 2
            g.get()

    @kind()
    def channels():
        channel = queue.Channel()
        g = parked(channel.get)
        channel.put(1)
        assert g.get() == 1

    @kind()
    def events():
        one, result = event.Event(), event.AsyncResult()
        waiting = [parked(one.wait), parked(result.get)]
        one.set()
        result.set(3)
        assert [g.get() for g in waiting] == [True, 3]

    @kind()
    def locks():
        rlock, semaphore = lock.RLock(), lock.BoundedSemaphore(1)
        with rlock, semaphore:
            waiting = [parked(rlock.acquire), parked(semaphore.acquire)]
            waiting[0].kill()
        waiting[1].get()

    @kind()
    def waits():
        gs = [gevent.spawn(abs, -1) for _ in range(3)]
        assert len(gevent.wait(gs)) == 3
        assert len(list(gevent.iwait([gevent.spawn(abs, -1)]))) == 1

    @kind()
    def watchers():
        loop = gevent.get_hub().loop
        timer = loop.timer(0)
        gevent.get_hub().wait(timer)
        timer.close()
        for watcher in (loop.idle(), loop.prepare(), loop.check(), loop.async_()):
            watcher.start(abs, -1)
            watcher.stop()
            watcher.close()
        loop.run_callback(abs, -1)
        loop.run_callback(abs, -1).stop()

    @kind(5)
    def sockets():
        one, other = socket.socketpair()
        reader = parked(lambda: one.recv(1))
        other.send(b"x")
        reader.get()
        reader = parked(lambda: one.recv(1))
        reader.kill()
        one.settimeout(0.0005)
        try:
            one.recv(1)
        except TimeoutError:
            pass
        one.close()
        other.close()

    @kind(5)
    def closed_under_a_reader():
        one, other = socket.socketpair()
        reader = parked(lambda: one.recv(1))
        one.close()
        other.close()
        reader.join()

    @kind(5)
    def loops():
        loop = gevent.core.loop(default=False)
        timer = loop.timer(0.0001)
        timer.start(abs, -1)
        loop.run()
        timer.close()
        loop.destroy()

    @kind(20)
    def native_threads():
        start = gevent.monkey.get_original("_thread", "start_new_thread")
        done = gevent.get_hub().loop.async_()

        def body():
            gevent.spawn(abs, -1).get()
            gevent.get_hub().destroy(destroy_loop=True)
            done.send()

        try:
            start(body, ())
            gevent.get_hub().wait(done)
        finally:
            done.close()
        # It has told us a moment before its end.
        while sample()["threads"] > define.threads:
            gevent.sleep(0.001)

    @kind(10)
    def thread_pools():
        threads = ThreadPool(1)
        assert threads.apply(abs, (-1,)) == 1
        threads.kill()

    define.threads = sample()["threads"]


def sample() -> dict[str, int]:
    status = pathlib.Path("/proc/self/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return {
        "resident KiB": int(fields["VmRSS"].split()[0]),
        "threads": int(fields["Threads"]),
        "descriptors": len(os.listdir("/proc/self/fd")),
    }


def settled() -> dict[str, int]:
    """What there is, after all that ended is gone."""
    import gevent

    # As upstream, it keeps the statuses of children for a minute, for who may ask late.
    gevent.os._watched_children.clear()
    # And urllib keeps the parts of every URL it has seen, with a new port each.
    urllib.parse.clear_cache()
    for _ in range(3):
        gevent.sleep(0.001)
        gc.collect()
    got = sample()
    objects = gc.get_objects()
    got["greenlets"] = sum(isinstance(o, gevent.Greenlet) for o in objects)
    got["objects"] = len(objects)
    del objects
    got["blocks"] = sys.getallocatedblocks()
    return got


def measure(function, count: int, seconds: float) -> tuple[int, list[str]]:
    """How many cycles there were, and what grew."""
    started = time.monotonic()
    for _ in range(max(3, count // 20)):
        function()
    each = (time.monotonic() - started) / max(3, count // 20)
    count = max(WINDOWS * 4, min(count, int(seconds / max(each, 1e-6))))
    window = count // WINDOWS
    marks = []
    for _ in range(WINDOWS):
        for _ in range(window):
            function()
        marks.append(settled())
    grew = []
    for name, (absolute, share) in ALLOWED.items():
        values = [mark[name] for mark in marks]
        steps = [after - before for before, after in itertools.pairwise(values)][-3:]
        if min(steps) > absolute + share * window:
            grew.append(f"{name} {' -> '.join(map(str, values))}")
    return window * WINDOWS, grew


def child(options) -> None:
    common.end_with_parent()
    from gevent import monkey

    monkey.patch_all()
    define()
    import gevent

    gevent.get_hub().exception_stream = None
    # One hub for all: the pool of the hub's threads is started before anything is counted.
    gevent.get_hub().threadpool.apply(abs, (1,))
    heartbeat()
    define.threads = sample()["threads"]
    total = 0
    for number, (name, (function, cost)) in enumerate(KINDS.items()):
        if number < options.first or options.only not in name:
            continue
        common.report(begin=name, number=number)
        count = max(options.cycles // cost, WINDOWS * 8) if options.quick else options.cycles
        count, grew = measure(function, count, options.seconds)
        total += count
        sys.stderr.write(f"{name}: {count}\n")
        common.report(end=f"after {count} cycles: {'; '.join(grew)}" if grew else None)
    common.report(done=True, cycles=total)


def heartbeat() -> None:
    """A step is long here: says every few seconds that it goes on, if the hub does."""
    import gevent

    def beat():
        while True:
            gevent.sleep(3)
            common.report(at="it goes on")

    gevent.spawn(beat)


def main() -> int:
    options = common.arguments(__doc__.splitlines()[0], cycles=20_000, seconds=15.0)
    if options.child:
        child(options)
        return 0
    if options.quick:
        options.cycles, options.seconds = 400, 0.5
    command = common.python("cycles.py", "--child", "all", "--loop", options.loop)
    for word in ("cycles", "seconds", "only"):
        command += [f"--{word}", getattr(options, word)]
    command += ["--quick"] * options.quick
    name = f"cycles [{options.loop}]"
    return common.steps(command, {"GEVENT_LOOP": options.loop}, name).end()


if __name__ == "__main__":
    sys.exit(main())
