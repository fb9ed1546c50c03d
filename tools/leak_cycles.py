"""Greenlets spawned, killed, timed out and linked, over and over: nothing may be left of them.

    leak_cycles.py [--cycles N]

After a warm-up, N cycles may not raise the resident memory by more than a margin, nor the number of
objects that the collector knows at all. Ends with `N passed, N failed, N skipped`.
"""

from __future__ import annotations

import argparse
import gc
import pathlib
import sys

import gevent
from gevent import event, lock, queue
from gevent.local import local
from gevent.pool import Pool

#: KiB that the allocator may keep, besides a byte a cycle.
MARGIN = 4096

values = local()


def nothing(*_):
    pass


def fails():
    raise ValueError("expected")


def uses_local():
    values.number = 1
    return values.number


def ended(greenlet):
    assert greenlet.ready()


def batch():
    """24 greenlets, which end in every way there is."""
    parked = event.Event()
    q = queue.Queue(1)
    semaphore = lock.BoundedSemaphore(1)
    gs = [gevent.spawn(nothing) for _ in range(4)]
    gs += [gevent.spawn(parked.wait, 10) for _ in range(4)]
    gs += [gevent.spawn(q.get, timeout=10) for _ in range(2)]
    gs += [gevent.spawn(semaphore.acquire) for _ in range(2)]
    gs += [gevent.spawn_later(10, nothing), gevent.spawn_later(0, nothing)]
    gs += [gevent.spawn(gevent.sleep, 10) for _ in range(4)]
    gs += [gevent.spawn(uses_local), gevent.spawn(fails)]
    for g in gs:
        g.link(ended)
        g.rawlink(nothing)
    gs[0].unlink(ended)
    with gevent.Timeout(0, False):
        gevent.sleep(1)
    timeouts = [gevent.Timeout.start_new(10) for _ in range(4)]
    gevent.sleep(0)
    for timeout in timeouts:
        timeout.close()
    gs.append(gevent.spawn(nothing))
    gs[-1].kill()
    pool = Pool(2)
    assert pool.map(abs, [-1, -2, -3]) == [1, 2, 3]
    gevent.killall(gs)
    gevent.sleep(0)
    assert all(g.dead for g in gs)
    return len(gs) + 3


def resident():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def objects():
    for _ in range(3):
        gevent.sleep(0)
        gc.collect()
    return len(gc.get_objects())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cycles", type=int, default=1_000_000)
    options = parser.parse_args()
    gevent.get_hub().exception_stream = None
    done = 0
    while done < min(20_000, options.cycles / 2):
        done += batch()
    before = resident(), objects()
    done = 0
    while done < options.cycles:
        done += batch()
    after = resident(), objects()
    grew = after[0] > before[0] + MARGIN + options.cycles / 1024 or after[1] > before[1] + 20
    print(f"{done} greenlets: {before[0]} -> {after[0]} KiB, {before[1]} -> {after[1]} objects")
    print(f"{int(not grew)} passed, {int(grew)} failed, 0 skipped")
    return int(grew)


if __name__ == "__main__":
    sys.exit(main())
