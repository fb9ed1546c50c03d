"""The operations whose allocations `nomemory.py` lets fail: each ends and leaves nothing behind.

`WORK` holds those that are run twice before, so that all is imported and in use; `FIRST` those
whose first use in a process is the matter. None may run at the import: the parent has to be
without a hub.
"""

from __future__ import annotations

import _thread
import io
import os

import gevent
from gevent import event, local, lock, pool, queue, socket
from gevent.timeout import Timeout

WORK = {}
FIRST = {}


def work(f):
    WORK[f.__name__] = f
    return f


def first(f):
    FIRST[f.__name__] = f
    return f


@work
def spawn():
    gevent.spawn(len, ()).get()


@work
def spawn_join():
    g = gevent.spawn(lambda: 1)
    g.join()
    return g.value


@work
def spawn_many():
    gevent.joinall([gevent.spawn(gevent.sleep, 0) for _ in range(5)])


@work
def spawn_later():
    gevent.spawn_later(0.0001, len, ()).get()


@work
def spawn_raw():
    done = []
    gevent.spawn_raw(done.append, 1)
    gevent.sleep(0)


@work
def kill():
    g = gevent.spawn(gevent.sleep, 10)
    gevent.sleep(0)
    g.kill()


@work
def killall():
    gevent.killall([gevent.spawn(gevent.sleep, 10) for _ in range(3)])


@work
def link():
    g = gevent.spawn(len, ())
    told = event.AsyncResult()
    g.link(told)
    told.get()


@work
def link_exception():
    g = gevent.spawn(len, ())
    g.link_exception(print)
    g.rawlink(lambda _: None)
    g.join()


@work
def failing():
    try:
        gevent.spawn(int, "x").get()
    except ValueError:
        pass


@work
def represent():
    g = gevent.spawn(len, ())
    repr(g), str(gevent.get_hub()), repr(g.args)
    g.join()
    repr(g), repr(lock.RLock()), str(Timeout(1)), repr(queue.Queue(1))


@work
def tree_locals():
    g = gevent.spawn(lambda: gevent.getcurrent().spawn_tree_locals)
    g.spawning_stack  # noqa: B018
    g.get()


@work
def queues():
    q = queue.Queue(1)
    g = gevent.spawn(q.get)
    q.put(1)
    q.put(2)
    g.get()


@work
def queue_sides():
    q = queue.Queue(1)
    g = gevent.spawn(lambda: [q.put(n) for n in range(3)])
    assert [q.get() for _ in range(3)] == [0, 1, 2]
    g.get()


@work
def priority_queue():
    q = queue.PriorityQueue()
    q.put((1, 2))
    q.put((0, 1))
    q.get()
    q.get()


@work
def tasks():
    q = queue.JoinableQueue()
    q.put(1)
    g = gevent.spawn(q.join)
    q.get()
    q.task_done()
    g.get()


@work
def full_queue():
    q = queue.Queue(1)
    q.put(1)
    for call in (lambda: q.put(2, timeout=0.0001), lambda: q.put_nowait(3)):
        try:
            call()
        except queue.Full:
            pass


@work
def channel():
    c = queue.Channel()
    g = gevent.spawn(c.get)
    gevent.sleep(0)
    c.put(1)
    g.get()


@work
def events():
    e = event.Event()
    g = gevent.spawn(e.wait)
    gevent.sleep(0)
    e.set()
    g.get()


@work
def results():
    r = event.AsyncResult()
    g = gevent.spawn(r.get)
    gevent.sleep(0)
    r.set(1)
    g.get()
    try:
        failed = event.AsyncResult()
        failed.set_exception(ValueError())
        failed.get()
    except ValueError:
        pass


@work
def semaphore():
    s = lock.Semaphore(0)
    g = gevent.spawn(s.acquire)
    gevent.sleep(0)
    s.release()
    g.get()


@work
def bounded():
    s = lock.BoundedSemaphore(1)
    with s:
        assert not s.acquire(blocking=False)
        assert not s.acquire(timeout=0.0001)


@work
def rlock():
    r = lock.RLock()
    r.acquire()
    g = gevent.spawn(r.acquire)
    gevent.sleep(0)
    r.release()
    g.get()


@work
def timeouts():
    with Timeout(0.0001, False):
        gevent.sleep(1)
    try:
        gevent.with_timeout(0.0001, gevent.sleep, 1)
    except Timeout:
        pass


@work
def sockets():
    a, b = socket.socketpair()
    g = gevent.spawn(a.recv, 5)
    gevent.sleep(0)
    b.sendall(b"x")
    g.get()
    a.close()
    b.close()


@work
def connections():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        g = gevent.spawn(listener.accept)
        with socket.create_connection(listener.getsockname()) as client:
            server, _ = g.get()
            with server:
                server.sendall(b"x" * 100)
                client.settimeout(10)
                assert client.recv(100)


@work
def datagrams():
    with socket.socket(type=socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        one.sendto(b"x", one.getsockname())
        into = bytearray(4)
        one.recvfrom_into(into)


@work
def socket_files():
    a, b = socket.socketpair()
    with a, b, a.makefile("rwb") as file:
        b.sendall(b"line\n")
        file.readline()
        file.write(b"x")
        file.flush()
        b.recv(1)


@work
def waiting():
    a, b = socket.socketpair()
    with a, b:
        b.sendall(b"x")
        socket.wait_read(a.fileno(), timeout=10)
        socket.wait_write(a.fileno(), timeout=10)


@work
def selecting():
    from gevent import select

    a, b = socket.socketpair()
    with a, b:
        b.sendall(b"x")
        select.select([a], [], [], 10)
        polled = select.poll()
        polled.register(a.fileno(), select.POLLIN)
        polled.poll(10)


@work
def pools():
    pool.Pool(2).map(len, [()] * 4)


@work
def pool_spawn():
    p = pool.Pool(1)
    p.spawn(len, ())
    p.apply_async(len, ((),)).get()
    p.join()


@work
def imap():
    list(pool.Pool(2).imap(len, [()] * 4))
    list(pool.Pool(2).imap_unordered(len, [()] * 4))


@work
def group():
    g = pool.Group()
    g.spawn(gevent.sleep, 10)
    g.kill()


@work
def threadpool():
    gevent.get_hub().threadpool.apply(len, ((),))


@work
def threadpool_spawn():
    gevent.get_hub().threadpool.spawn(len, ()).get()


@work
def locals_of_greenlets():
    values = local.local()
    values.x = 1
    gevent.spawn(lambda: setattr(values, "x", 2)).get()
    return values.x


@work
def waitall():
    gevent.wait([gevent.spawn(len, ()) for _ in range(3)])
    list(gevent.iwait([gevent.spawn(len, ()), event.Event()], count=1))


@work
def idle():
    gevent.idle()


@work
def timer():
    told = []
    watcher = gevent.get_hub().loop.timer(0.0001)
    watcher.start(told.append, 1)
    gevent.sleep(0.0005)
    watcher.stop()
    watcher.close()


@work
def watchers():
    loop = gevent.get_hub().loop
    a, b = socket.socketpair()
    with a, b:
        b.sendall(b"x")
        io_watcher = loop.io(a.fileno(), 1)
        gevent.get_hub().wait(io_watcher)
        io_watcher.close()
    wake = loop.async_()
    wake.start(len, ())
    wake.send()
    wake.close()


@work
def callbacks():
    loop = gevent.get_hub().loop
    loop.run_callback(len, ())
    loop.run_callback_threadsafe(len, ())
    loop.run_callback(len, ()).stop()
    gevent.sleep(0)


@work
def pipe_files():
    from gevent.fileobject import FileObjectPosix

    r, w = os.pipe()
    reader, writer = FileObjectPosix(r, "rb"), FileObjectPosix(w, "wb")
    writer.write(b"x")
    writer.close()
    assert reader.read() == b"x"
    reader.close()


@work
def resolve():
    socket.getaddrinfo("127.0.0.1", 80)


@work
def http_request():
    from gevent import pywsgi

    def application(environ, start_response):
        environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"a", b"b"]

    server = pywsgi.WSGIServer(("127.0.0.1", 0), application, log=None)
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.server_port)) as client:
            client.settimeout(10)
            client.sendall(b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
            answer = io.BytesIO()
            while part := client.recv(1000):
                answer.write(part)
    finally:
        server.stop()


@work
def raw():
    import greenlet

    g = greenlet.greenlet(greenlet.getcurrent().switch)
    g.switch(1)
    g.throw()


@work
def raw_traced():
    import greenlet

    old = greenlet.settrace(lambda *_: None)
    try:
        greenlet.greenlet(lambda: None).switch()
    finally:
        greenlet.settrace(old)


@work
def thread_hub():
    """A hub of another thread: made, used and ended."""
    done = _thread.allocate_lock()
    done.acquire()

    def run():
        try:
            gevent.sleep(0)
            gevent.get_hub().destroy()
        finally:
            done.release()

    _thread.start_new_thread(run, ())
    done.acquire()


@work
def thread_first_greenlet():
    done = _thread.allocate_lock()
    done.acquire()

    def run():
        import greenlet

        try:
            greenlet.getcurrent()
        finally:
            done.release()

    _thread.start_new_thread(run, ())
    done.acquire()


@first
def first_hub():
    gevent.get_hub()


@first
def first_sleep():
    gevent.sleep(0)


@first
def first_spawn():
    gevent.spawn(len, ()).get()


@first
def first_lock():
    lock.RLock().acquire()
    lock.Semaphore(1).acquire()


@first
def first_threadpool():
    gevent.get_hub().threadpool.apply(len, ((),))


@first
def first_resolver():
    gevent.get_hub().resolver.getaddrinfo("127.0.0.1", 1)


@first
def first_raw():
    import greenlet

    greenlet.greenlet(len).switch(())
