"""Figures of one interpreter's hub that are no loop of operations: shares, idleness, size, a rival.

    bench_hub.py NAME [NUMBER]

Prints one JSON object. Like bench_micro.py it uses nothing that upstream lacks: tools/bench.py runs
it on both. Each name is a function below, and each runs in a process of its own.
"""

import gc
import json
import os
import resource
import sys
import threading
import time


def cold_import(_):
    """What `import gevent` costs, with the compiled files there."""
    cpu = time.process_time()
    import gevent  # noqa: F401

    return {"ms of CPU": (time.process_time() - cpu) * 1e3}


def equal_shares(number):
    """Greenlets that always have something to do: how long each waits for its turn."""
    import gevent

    turns = [0] * number
    waits = []
    end = time.perf_counter() + 3

    def busy(me):
        last = time.perf_counter()
        while last < end:
            for _ in range(200):
                pass
            turns[me] += 1
            gevent.sleep(0)
            now = time.perf_counter()
            waits.append(now - last)
            last = now

    gevent.joinall([gevent.spawn(busy, i) for i in range(number)])
    # The first turns are those in which not all have started yet.
    waits = sorted(waits[number:])
    mean = sum(waits) / len(waits)
    return {
        "fewest turns/most": min(turns) / max(turns),
        "p99 of the wait/mean": waits[len(waits) * 99 // 100] / mean,
        "mean wait, ms": mean * 1e3,
    }


def idle(seconds):
    """A hub with nothing to do but to wait for another thread: how often it wakes up."""
    import gevent
    from gevent.event import Event

    waker, woken = gevent.get_hub().loop.async_(), Event()
    waker.start(woken.set)
    gevent.sleep(0.1)
    timer = threading.Timer(seconds, waker.send)
    timer.start()
    before = resource.getrusage(resource.RUSAGE_THREAD)
    woken.wait()
    after = resource.getrusage(resource.RUSAGE_THREAD)
    timer.join()
    # Going to sleep and the wake that ends it are not the idle hub's.
    extra = after.ru_nvcsw - before.ru_nvcsw - 1
    return {
        "wake-ups on the way to sleep": extra,
        "CPU us a minute": (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        * 60e6
        / seconds,
    }


def memory():
    with open("/proc/self/status") as status:
        kib = [int(x.split()[1]) for x in status if x.startswith(("VmRSS", "VmPTE"))]
    return sum(kib) * 1024


def each(number, make):
    gc.collect()
    gc.disable()
    before, begun = memory(), time.process_time()
    kept = make(number)
    took, after = time.process_time() - begun, memory()
    assert len(kept) == number
    return {"bytes each": (after - before) / number, "ns each": took / number * 1e9}


def parked_greenlets(number):
    """Greenlets in a sleep, started with nothing in the pools."""
    import gevent

    def parked():
        gevent.sleep(10_000)

    def make(n):
        made = [gevent.spawn(parked) for _ in range(n)]
        gevent.sleep(0)
        gevent.sleep(0.001)
        return made

    gevent.sleep(0)
    got = each(number, make)
    os.write(1, json.dumps(got).encode() + b"\n")
    # Ending them one by one is not what is measured.
    os._exit(0)


def pending_timers(number):
    """Timeouts that are not due."""
    import gevent

    gevent.sleep(0)
    got = each(number, lambda n: [gevent.Timeout.start_new(1000 + i % 50) for i in range(n)])
    os.write(1, json.dumps(got).encode() + b"\n")
    os._exit(0)


def echo_server(port, rival=False):
    """An echo server, alone or beside a native thread that never rests. Runs until it is ended."""
    import gevent
    from gevent.server import StreamServer

    def echo(conn, _address):
        while data := conn.recv(65536):
            conn.sendall(data)

    def work():
        while True:
            sum(range(100))

    if rival:
        threading.Thread(target=work, daemon=True).start()
    server = StreamServer(("127.0.0.1", port), echo)
    server.start()
    gevent.get_hub().join()


def echo_server_beside_a_thread(port):
    echo_server(port, True)


def main():
    name, number = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
    print(json.dumps(globals()[name](number)))


if __name__ == "__main__":
    main()
