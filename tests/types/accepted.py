"""A program as users write them: `mypy --strict` has nothing to say."""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import gevent
from gevent import Greenlet, Timeout, pywsgi, socket, ssl, subprocess
from gevent.event import AsyncResult, Event
from gevent.hub import get_hub
from gevent.local import local
from gevent.lock import BoundedSemaphore, RLock
from gevent.pool import Group, Pool
from gevent.queue import Queue
from gevent.select import select
from gevent.server import StreamServer
from gevent.threadpool import ThreadPool, ThreadPoolExecutor


def add(a: int, b: int = 2) -> int:
    return a + b


class Worker(Greenlet[[], str]):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def _run(self) -> str:
        return str(self.number)


class State(local):
    count: int = 3


def greenlets() -> None:
    worker = Worker(3)
    worker.start()
    text: str = worker.get()
    spawned = gevent.spawn(add, 1, b=3)
    number: int = spawned.get(timeout=2)
    print(text, number, State().count)
    made = Greenlet(add, 1)
    made.start()
    gevent.spawn_later(0.1, add, 1)
    gevent.joinall([spawned, made], timeout=1)
    gevent.joinall([gevent.spawn(add, 1), gevent.spawn(len, "a")])
    spawned.link(lambda greenlet: print(greenlet.value))
    spawned.rawlink(print)
    gevent.kill(spawned)
    gevent.killall([made])
    gevent.signal_handler(15, gevent.kill, made)


def pools() -> None:
    pool = Pool(10)
    pool.spawn(add, 1).get()
    doubled: list[int] = pool.map(lambda x: x + 1, [1, 2])
    print(doubled)
    for word in pool.imap_unordered(str, [1]):
        word.upper()
    group = Group()
    group.add(gevent.spawn(add, 1))
    group.join()
    threads = ThreadPool(3)
    number: int = threads.spawn(add, 1).get()
    print(number, threads.apply(add, (1,)), get_hub().threadpool.apply(add, (1,)))
    with ThreadPoolExecutor(2) as executor:
        executor.submit(add, 1).result()


def waiting() -> None:
    event = Event()
    event.wait(1)
    event.set()
    result: AsyncResult[int] = AsyncResult()
    result.set(1)
    number: int = result.get()
    queue: Queue[int] = Queue(3)
    queue.put(number)
    for item in queue:
        print(item + 1)
    with Timeout(2), BoundedSemaphore(2), RLock():
        gevent.sleep(0)
    with Timeout(2, False):
        gevent.wait([event])
    number = gevent.with_timeout(2, add, 1)
    maybe: int | None = gevent.with_timeout(2, add, 1, timeout_value=None)
    print(maybe)
    get_hub().loop.timer(1).start(print)


def handle(sock: socket.socket, address: tuple[str, int]) -> None:
    data = sock.recv(100)
    sock.sendall(data)
    sock.close()
    print(address)


def application(environ: dict[str, object], start_response: object) -> list[bytes]:
    return [b""]


def network() -> None:
    server = StreamServer(("127.0.0.1", 0), handle)
    server.start()
    client = socket.create_connection(("127.0.0.1", 1))
    client.settimeout(3)
    client.makefile("rb").read()
    readable, _, _ = select([client], [], [], 1)
    print(readable[0].fileno(), client.family == socket.AF_INET)
    context = ssl.create_default_context()
    context.wrap_socket(client, server_hostname="a").getpeercert()
    server.stop()
    pywsgi.WSGIServer(("", 8080), application).serve_forever()


def children() -> None:
    print(subprocess.check_output(["ls"]))
    child = subprocess.Popen(["ls"], stdout=subprocess.PIPE)
    child.rawlink(print)
    child.wait()
