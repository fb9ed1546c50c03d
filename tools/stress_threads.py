"""Native threads and hubs that share locks, queues, events and a logging handler.

    stress_threads.py [--seconds S] [--times N] [--threads 8] [--hubs 4]

Each of the *threads* has no hub; each of the *hubs* runs in a thread of its own, with greenlets.
All do the same things at random for so long. Then every item that was put has been gotten once,
what the locks guard adds up, every question has its answer, and every record was logged; the run
has to be over soon after its time, or all stacks are printed. Ends with `N passed, N failed, N
skipped`.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import logging
import os
import random
import sys
import threading
import time

import gevent
from gevent import queue
from gevent.event import AsyncResult, Event
from gevent.lock import BoundedSemaphore, RLock, Semaphore
from gevent.thread import LockType

GREENLETS = 3
#: How long after its time a run may take to come to its end, in seconds.
GRACE = 60 * float(os.environ.get("TIME_SCALE") or 1)


class Guarded:
    """A number that is only right if its lock excludes."""

    def __init__(self, lock):
        self.lock = lock
        self.value = 0

    def add(self, pause):
        with self.lock:
            value = self.value
            pause()
            self.value = value + 1


class CountingHandler(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lock = RLock()
        self.records = 0

    def emit(self, record):
        # The handler's lock is held.
        records = self.records
        self.format(record)
        self.records = records + 1


class World:
    def __init__(self, seconds):
        self.until = time.monotonic() + seconds
        self.guarded = [
            Guarded(lock) for lock in (BoundedSemaphore(1), RLock(), Semaphore(1), LockType())
        ]
        self.permits = Semaphore(3)
        self.inside = []
        self.queues = [queue.Queue(5), queue.SimpleQueue(), queue.LifoQueue(3), queue.Channel()]
        self.questions = queue.Queue()
        self.event = Event()
        self.handler = CountingHandler()
        self.logger = logging.Logger("stress")
        self.logger.addHandler(self.handler)
        self.failures = []

    def over(self):
        return time.monotonic() >= self.until


class Worker:
    """One thread or greenlet: what it did, to be added up at the end."""

    def __init__(self, world, number, sleep):
        self.world = world
        self.number = number
        self.sleep = sleep
        self.random = random.Random(number)
        self.put = []
        self.got = []
        self.added = [0] * len(world.guarded)
        self.logged = self.answered = self.asked = 0

    def run(self):
        try:
            steps = [self.add, self.add, self.items, self.items, self.permit]
            steps += [self.event, self.log, self.ask, self.answer, self.answer]
            while not self.world.over():
                self.random.choice(steps)()
            while self.answer():
                pass
        except BaseException as ex:
            self.world.failures.append(f"worker {self.number}: {ex!r}")
            raise

    def pause(self):
        if self.random.random() < 0.2:
            self.sleep(0)

    def add(self):
        at = self.random.randrange(len(self.world.guarded))
        self.world.guarded[at].add(self.pause)
        self.added[at] += 1

    def permit(self):
        world = self.world
        if world.permits.acquire(timeout=self.random.choice([None, 0.001])):
            world.inside.append(self.number)
            if len(world.inside) > 3:
                world.failures.append(f"{world.inside} in a semaphore of 3")
            self.pause()
            world.inside.remove(self.number)
            world.permits.release()

    def items(self):
        q = self.random.choice(self.world.queues)
        timeout = self.random.choice([0.0005, 0.005])
        try:
            if self.random.random() < 0.5:
                item = (self.number, len(self.put))
                q.put(item, timeout=timeout)
                self.put.append(item)
            elif self.random.random() < 0.5:
                self.got.append(q.get(timeout=timeout))
            else:
                self.got.append(q.get(block=False))
        except (queue.Empty, queue.Full):
            pass

    def event(self):
        match self.random.randrange(3):
            case 0:
                self.world.event.set()
            case 1:
                self.world.event.clear()
            case 2:
                self.world.event.wait(0.002)

    def log(self):
        self.world.logger.warning("%s has put %s", self.number, len(self.put))
        self.logged += 1

    def ask(self):
        answer = AsyncResult()
        self.world.questions.put((self.asked, answer))
        if self.random.random() < 0.5:
            self.answer()
        if answer.get(timeout=GRACE) != self.asked + 1:
            self.world.failures.append("a wrong answer")
        self.asked += 1

    def answer(self):
        try:
            number, answer = self.world.questions.get(block=False)
        except queue.Empty:
            return False
        answer.set(number + 1)
        self.answered += 1
        return True


def in_hub(workers):
    gevent.joinall([gevent.spawn(worker.run) for worker in workers], raise_error=True)
    gevent.get_hub().destroy(destroy_loop=True)


def stress(seconds, threads, hubs):
    """One run. Returns what went wrong."""
    world = World(seconds)
    native = [Worker(world, n, time.sleep) for n in range(threads)]
    groups = [
        [Worker(world, 100 * (hub + 1) + n, gevent.sleep) for n in range(GREENLETS)]
        for hub in range(hubs)
    ]
    running = [threading.Thread(target=worker.run, daemon=True) for worker in native]
    running += [threading.Thread(target=in_hub, args=(group,), daemon=True) for group in groups]
    for thread in running:
        thread.start()
    limit = world.until + GRACE
    while any(thread.is_alive() for thread in running):
        # Questions that nobody is left to answer.
        try:
            number, answer = world.questions.get(timeout=0.05)
            answer.set(number + 1)
        except queue.Empty:
            pass
        if time.monotonic() > limit:
            faulthandler.dump_traceback(all_threads=True)
            return [f"{sum(t.is_alive() for t in running)} threads hang"]
    workers = native + [worker for group in groups for worker in group]
    left = []
    for q in world.queues:
        while True:
            try:
                left.append(q.get(block=False))
            except queue.Empty:
                break
    put = collections.Counter(item for worker in workers for item in worker.put)
    got = collections.Counter(item for worker in workers for item in worker.got)
    got.update(left)
    wrong = list(world.failures)
    if put != got:
        lost, doubled = (list(some)[:5] for some in (put - got, got - put))
        wrong.append(f"lost {lost}, doubled {doubled}")
    for at, guarded in enumerate(world.guarded):
        added = sum(worker.added[at] for worker in workers)
        if guarded.value != added:
            wrong.append(f"{type(guarded.lock).__name__}: {guarded.value} of {added}")
    logged = sum(worker.logged for worker in workers)
    if world.handler.records != logged:
        wrong.append(f"{world.handler.records} of {logged} records")
    if world.inside or world.permits.counter != 3:
        wrong.append(f"the semaphore ends with {world.permits.counter}")
    done = sum(map(len, (put, got))) + sum(g.value for g in world.guarded) + logged
    asked = sum(worker.asked for worker in workers)
    print(f"{done} operations, {asked} questions, {len(left)} items left", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--hubs", type=int, default=4)
    options = parser.parse_args()
    failed = 0
    for _ in range(options.times):
        wrong = stress(options.seconds, options.threads, options.hubs)
        print("\n".join(wrong), end="\n" * bool(wrong))
        failed += bool(wrong)
        if any("hang" in line for line in wrong):
            break
    print(f"{options.times - failed} passed, {failed} failed, 0 skipped", flush=True)
    # Threads that hang would keep the process.
    os._exit(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
