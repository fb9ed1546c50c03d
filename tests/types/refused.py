"""Mistakes that `mypy --strict` has to find: each line that ends with a code in brackets."""

from __future__ import annotations

import gevent
from gevent import socket
from gevent.pool import Pool
from gevent.queue import Queue
from gevent.threadpool import ThreadPool


def add(a: int, b: int = 2) -> int:
    return a + b


def receive(sock: socket.socket) -> bytes:
    sock.nosuch()  # [attr-defined]
    return sock.recv(10)


def value(greenlet: gevent.Greenlet[..., int]) -> int:
    return greenlet.get()


gevent.spawn(add)  # [call-arg]
gevent.spawn(add, "a")  # [arg-type]
gevent.spawn(add, 1, c=3)  # [call-arg]
gevent.spawn(receive, 3)  # [arg-type]
gevent.spawn_later(1, add)  # [call-arg]
gevent.Greenlet(add)  # [call-overload]
gevent.Greenlet.spawn(add, None)  # [arg-type]
text: str = gevent.spawn(add, 1).get()  # [assignment]
value(gevent.spawn(str, 1))  # [arg-type]
Pool(3).spawn(add)  # [call-arg]
Pool(3).map(add, ["a"])  # [arg-type]
ThreadPool(3).spawn(add, None).get()  # [arg-type]
numbers: Queue[int] = Queue()
numbers.put("a")  # [arg-type]
gevent.with_timeout(1, add, "a")  # [call-overload]
gevent.sleep("a")  # [arg-type]
