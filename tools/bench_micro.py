"""Small measurements of one interpreter's gevent, whichever it is: nanoseconds an operation.

    bench_micro.py [CASE ...]

Prints one JSON object. Each case is the best of a few rounds with the collector off. The bodies use
nothing that upstream lacks, so that two interpreters can be compared (tools/bench.py).
"""

import gc
import json
import os
import sys
import time

import gevent
from gevent import event, local, lock, pool, queue, socket

# After gevent, so that it is the type that this gevent switches.
import greenlet  # isort: skip

ROUNDS = int(os.environ.get("BENCH_ROUNDS") or 3)
CASES = {}


def case(many):
    """Registers a function of the number of operations to do."""

    def register(function):
        CASES[function.__name__] = (function, many)
        return function

    return register


def nothing():
    pass


@case(100_000)
def spawn_join(n):
    gevent.joinall([gevent.spawn(nothing) for _ in range(n)])


@case(50_000)
def spawn_join_each(n):
    for _ in range(n):
        gevent.spawn(nothing).join()


@case(100_000)
def spawn_raw(n):
    for _ in range(n):
        gevent.spawn_raw(nothing)
    gevent.sleep(0)


@case(100_000)
def sleep_zero(n):
    for _ in range(n):
        gevent.sleep(0)


@case(100_000)
def sleep_zero_among_100(n):
    def sleeper():
        for _ in range(n // 100):
            gevent.sleep(0)

    gevent.joinall([gevent.spawn(sleeper) for _ in range(100)])


@case(300_000)
def switch(n):
    main = greenlet.getcurrent()

    def back():
        while True:
            main.switch()

    other = greenlet.greenlet(back)
    for _ in range(n):
        other.switch()


@case(100_000)
def greenlet_whole_life(n):
    for _ in range(n):
        greenlet.greenlet(nothing).switch()


@case(50_000)
def queue_ping_pong(n):
    there, back = queue.Queue(), queue.Queue()

    def answer():
        for _ in range(n):
            back.put(there.get())

    other = gevent.spawn(answer)
    for i in range(n):
        there.put(i)
        back.get()
    other.join()


@case(50_000)
def queue_bounded(n):
    items = queue.Queue(10)
    producer = gevent.spawn(lambda: [items.put(i) for i in range(n)])
    for _ in range(n):
        items.get()
    producer.join()


@case(50_000)
def event_ping_pong(n):
    there, back = event.Event(), event.Event()

    def answer():
        for _ in range(n):
            there.wait()
            there.clear()
            back.set()

    other = gevent.spawn(answer)
    for _ in range(n):
        there.set()
        back.wait()
        back.clear()
    other.join()


@case(50_000)
def async_result(n):
    for _ in range(n):
        result = event.AsyncResult()
        gevent.spawn(result.set, 1)
        result.get()


@case(200_000)
def semaphore_free(n):
    free = lock.BoundedSemaphore(1)
    for _ in range(n):
        with free:
            pass


@case(50_000)
def semaphore_contended(n):
    one = lock.BoundedSemaphore(1)

    def user():
        for _ in range(n // 20):
            with one:
                gevent.sleep(0)

    gevent.joinall([gevent.spawn(user) for _ in range(20)])


@case(100_000)
def timeout_never_due(n):
    for _ in range(n):
        gevent.Timeout.start_new(10).close()


@case(100_000)
def timeouts_pending(n):
    pending = [gevent.Timeout.start_new(100 + i % 50) for i in range(n)]
    for one in pending:
        one.close()


@case(30_000)
def pool_map(n):
    pool.Pool(100).map(abs, range(n))


@case(300_000)
def local_attribute(n):
    own = local.local()
    own.x = 1
    for _ in range(n):
        own.x  # noqa: B018


@case(300_000)
def getcurrent(n):
    for _ in range(n):
        gevent.getcurrent()


@case(30_000)
def socket_ping_pong(n):
    near, far = socket.socketpair()

    def echo():
        while data := far.recv(64):
            far.sendall(data)

    other = gevent.spawn(echo)
    for _ in range(n):
        near.sendall(b"x" * 16)
        near.recv(64)
    near.close()
    other.join()
    far.close()


@case(100_000)
def socket_never_waits(n):
    near, far = socket.socketpair()
    for _ in range(n):
        near.send(b"x")
        far.recv(1)
    near.close()
    far.close()


@case(5_000)
def threadpool_call(n):
    threads = gevent.get_hub().threadpool
    for _ in range(n):
        threads.apply(nothing)


def measure(name):
    function, many = CASES[name]
    best = float("inf")
    for _ in range(ROUNDS):
        gc.collect()
        gc.disable()
        begun = time.perf_counter()
        function(many)
        best = min(best, time.perf_counter() - begun)
        gc.enable()
    return round(best / many * 1e9, 1)


def main():
    got = {}
    for name in sys.argv[1:] or CASES:
        try:
            got[name] = measure(name)
        except Exception as error:
            got[name] = f"{type(error).__name__}: {error}"
    print(json.dumps(got))


if __name__ == "__main__":
    main()
