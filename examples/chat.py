"""A chat room: what somebody says, everybody else hears. Try it with ``nc 127.0.0.1 16001``.

chat.py [PORT]

Each guest has two greenlets: one reads lines, the other sends what waits in the guest's queue. A
guest that does not read fills that queue, and then misses lines; nobody waits for them.
"""

import itertools
import sys

import gevent
from gevent.queue import Full, Queue
from gevent.server import StreamServer

#: Lines that a guest may be behind.
BACKLOG = 100


class Room:
    def __init__(self):
        self.guests = {}
        self.names = itertools.count()

    def tell_others(self, name, line):
        for other, outbox in self.guests.items():
            if other != name:
                try:
                    outbox.put_nowait(line)
                except Full:
                    pass

    def serve(self, conn, _address):
        name = next(self.names)
        outbox = self.guests[name] = Queue(BACKLOG)
        sender = gevent.spawn(self.send, conn, outbox)
        self.tell_others(name, "* %d has come\n" % name)
        try:
            with conn.makefile("r", encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    self.tell_others(name, "%d: %s\n" % (name, line.rstrip()))
        except OSError:
            pass
        finally:
            del self.guests[name]
            self.tell_others(name, "* %d has left\n" % name)
            sender.kill()

    @staticmethod
    def send(conn, outbox):
        for line in outbox:
            conn.sendall(line.encode())


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 16001
    StreamServer(("127.0.0.1", port), Room().serve).serve_forever()
