"""Two TLS ends that send each other much, while their greenlets are killed and timed out at random.

    soak_tls.py [--bytes N] [--seed S]

What each end has to send is known byte by byte, so the other can tell whether anything was lost,
doubled or changed. A killed greenlet's successor goes on where its socket is: reads take bytes or
take none, and a write that was interrupted is repeated with the same bytes, as OpenSSL wants it.
Prints one line, the count of bytes and of interruptions, and exits with 1 if a byte is wrong.
"""

from __future__ import annotations

import argparse
import pathlib
import random
import sys
import time

import gevent
from gevent import socket, ssl

DATA = pathlib.Path(__file__).resolve().parent.parent / "tests" / "python" / "data"
#: Of a length that is no power of two, so that a shift shows.
PERIOD = (1 << 20) + 7
LARGEST = 100_000


def contexts():
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(DATA / "localhost.crt", DATA / "localhost.key")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(DATA / "localhost.crt")
    return server, client


class Wrong(Exception):
    """A byte that is not what was sent."""


class End:
    """One end: how much it has sent and received, whoever did it."""

    def __init__(self, sock, outgoing, incoming, total):
        self.sock = sock
        self.outgoing, self.incoming = memoryview(outgoing), memoryview(incoming)
        self.total = total
        self.sent = self.received = 0
        self.buffer = bytearray(70_000)
        self.view = memoryview(self.buffer)

    def write(self):
        while self.sent < self.total:
            at = self.sent % PERIOD
            # The size follows from the place, so that a repetition is one.
            size = min(1 + self.sent * 7919 % LARGEST, self.total - self.sent)
            self.sent += self.sock.send(self.outgoing[at : at + size])

    def read(self):
        while self.received < self.total:
            size = 1 + self.received * 104_729 % len(self.buffer)
            got = self.sock.recv_into(self.buffer, size)
            at = self.received % PERIOD
            if not got or self.view[:got] != self.incoming[at : at + got]:
                raise Wrong(f"{got} bytes at {self.received} are not those that were sent")
            self.received += got


def connected(server, client):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        plain = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    serving = gevent.spawn(server.wrap_socket, accepted, server_side=True)
    wrapped = client.wrap_socket(plain, server_hostname="localhost")
    return serving.get(), wrapped


def with_timeouts(work, chance):
    """Does *work*, which is interrupted by timeouts, until it is done."""
    while True:
        try:
            with gevent.Timeout(chance.uniform(0, 0.003) if chance.random() < 0.5 else None):
                return work()
        except gevent.Timeout:
            with_timeouts.count += 1


with_timeouts.count = 0


def exchange(total, seed):
    """Sends *total* bytes each way; returns how many kills and timeouts there were."""
    chance = random.Random(seed)
    with_timeouts.count = 0
    patterns = [random.Random(n).randbytes(PERIOD) for n in (1, 2)]
    # Twice, so that a piece never has to be put together.
    patterns = [pattern + pattern[:LARGEST] for pattern in patterns]
    one, other = connected(*contexts())
    ends = [End(one, *patterns, total), End(other, *reversed(patterns), total)]
    work = [task for end in ends for task in (end.write, end.read)]
    running = [gevent.spawn(with_timeouts, task, chance) for task in work]
    kills = 0
    while not all(g.successful() for g in running):
        gevent.sleep(chance.uniform(0, 0.004))
        n = chance.randrange(len(work))
        if not running[n].ready():
            running[n].kill()
            kills += 1
        for n, greenlet in enumerate(running):
            if isinstance(greenlet.value, gevent.GreenletExit):
                running[n] = gevent.spawn(with_timeouts, work[n], chance)
            elif greenlet.ready():
                # Raises what was wrong.
                greenlet.get()
    for end in ends:
        if (end.sent, end.received) != (total, total):
            raise Wrong(f"{end.sent} sent and {end.received} received of {total}")
    # And nothing behind it but the end.
    closing = gevent.spawn(one.unwrap)
    if other.recv(100):
        raise Wrong("bytes after the last")
    other.unwrap()
    closing.get()
    one.close()
    other.close()
    return kills, with_timeouts.count


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bytes", type=float, default=200e6, help="both ways together")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    total = int(options.bytes / 2)
    began = time.monotonic()
    try:
        kills, timeouts = exchange(total, seed)
    except Wrong as ex:
        print(f"seed {seed}: {ex}")
        return 1
    took = time.monotonic() - began
    print(
        f"{2 * total} bytes, {kills} kills, {timeouts} timeouts, {took:.1f} s, "
        f"{2 * total / took / 1e6:.0f} MB/s, seed {seed}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
