"""The work that tools/soak.py watches: everything that makes and drops objects, for ever.

Each round serves and breaks connections, lets timeouts fire and be cancelled, kills parked
greenlets, and calls into threads. After each round it prints one line: how many rounds, greenlets
and Python objects there are.
"""

import gc
import sys

import gevent
from gevent import event, pool, queue, socket
from gevent.server import StreamServer
from gevent.threadpool import ThreadPool


def echo(conn, _address):
    while data := conn.recv(4096):
        conn.sendall(data)


def client(address, number):
    with socket.create_connection(address) as conn:
        for _ in range(5):
            message = b"%d" % number * 50
            conn.sendall(message)
            got = b""
            while len(got) < len(message):
                got += conn.recv(4096)
            assert got == message
        if number % 3 == 0:
            # Leaves in the middle: the server's greenlet is parked in recv and sees the end.
            conn.sendall(b"x")


def timeouts():
    for n in range(50):
        with gevent.Timeout(0.001 if n % 2 else 10, False):
            gevent.sleep(0.0005 if n % 4 else 0.002)


def parked_and_killed():
    waits = [event.Event(), queue.Queue(), event.AsyncResult()]
    all_parked = [
        gevent.spawn(wait)
        for wait in (waits[0].wait, waits[1].get, waits[2].get)
        for _ in range(100)
    ]
    gevent.sleep(0)
    gevent.killall(all_parked)
    assert all(g.dead for g in all_parked)


def pipeline():
    first, second = queue.Queue(5), queue.Queue(5)

    def middle():
        while (item := first.get()) is not None:
            second.put(item * 2)
        second.put(None)

    def start():
        for n in range(500):
            first.put(n)
        first.put(None)

    gevent.spawn(start)
    gevent.spawn(middle)
    total = 0
    while (item := second.get()) is not None:
        total += item
    assert total == 500 * 499


def failing():
    def fail():
        raise ValueError("expected")

    hub = gevent.get_hub()
    old, hub.exception_stream = hub.exception_stream, None
    try:
        for g in gevent.joinall([gevent.spawn(fail) for _ in range(50)]):
            assert isinstance(g.exception, ValueError)
    finally:
        hub.exception_stream = old


def main():
    server = StreamServer(("127.0.0.1", 0), echo)
    server.start()
    threads = ThreadPool(3)
    number = 0
    while True:
        number += 1
        clients = pool.Group()
        for n in range(60):
            clients.spawn(client, server.address, n)
        jobs = [gevent.spawn(job) for job in (timeouts, parked_and_killed, pipeline, failing)]
        assert sum(threads.map(abs, range(-100, 0))) == 5050
        clients.join(raise_error=True)
        gevent.joinall(jobs, raise_error=True)
        gc.collect()
        alive = sum(isinstance(o, gevent.Greenlet) and not o.dead for o in gc.get_objects())
        sys.stdout.write(f"{number} {alive} {len(gc.get_objects())}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
