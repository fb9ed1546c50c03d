"""Daemon threads with hubs that are still there when the interpreter ends."""

import subprocess
import sys
import textwrap

import pytest

# The interpreter takes a while to end, and everything here wants the GIL meanwhile.
SCRIPT = r"""
    import threading, time

    import gevent
    from gevent import socket
    from gevent.event import Event
    from gevent.hub import get_hub
    from gevent.pywsgi import WSGIServer
    from gevent.threadpool import ThreadPool

    class Slow:
        def __del__(self, sleep=time.sleep):
            sleep(0.03)

    slow = Slow()

    def of_sleep():
        while True:
            gevent.sleep(0.0001)

    def of_event():
        event = Event()

        def set_and_clear():
            while True:
                event.set()
                event.clear()
                gevent.sleep(0)

        gevent.spawn(set_and_clear)
        while True:
            event.wait(0.001)

    def of_native_event():
        # Of another thread's hub.
        while True:
            shared.wait(0.0001)

    def of_socket():
        here, there = socket.socketpair()

        def answer():
            while True:
                there.send(there.recv(100000))

        gevent.spawn(answer)
        while True:
            here.send(b'x' * 70000)
            here.recv(100000)

    def of_loop():
        loop = get_hub().loop
        timer = loop.timer(0.0001, 0.0001)
        timer.start(lambda: None)
        loop.run()

    def of_callback():
        loop = get_hub().loop
        timer = loop.timer(0.0001, 0.0001)
        timer.start(time.sleep, 0.0001)
        gevent.sleep(1000)

    def of_greenlet():
        def link(greenlet):
            time.sleep(0.0001)

        def body():
            while True:
                gevent.spawn(time.sleep, 0).rawlink(link)
                gevent.sleep(0)

        gevent.spawn(body).join()

    def of_pool():
        pool = ThreadPool(2)
        while True:
            pool.apply(time.sleep, (0.0001,))

    def of_file():
        from gevent.fileobject import FileObject
        with FileObject('/dev/zero', 'rb') as f:
            while True:
                f.read(100000)

    def spin():
        # Long enough to be asked for the GIL.
        until = time.monotonic() + 0.002
        while time.monotonic() < until:
            pass

    def of_wsgi():
        class Blocks:
            def __init__(self):
                self.left = 1000

            def __iter__(self):
                return self

            def __next__(self):
                spin()
                self.left -= 1
                if not self.left:
                    raise StopIteration
                return b'x'

        def application(environ, start_response):
            start_response('200 OK', [])
            return Blocks()

        server = WSGIServer(('127.0.0.1', 0), application, log=None)
        server.start()
        client = socket.create_connection(server.address[:2])
        client.sendall(b'GET / HTTP/1.1\r\nHost: here\r\n\r\n')
        while True:
            client.recv(1000)

    def of_end():
        # The last reference is a finished greenlet's.
        class Ends:
            def __del__(self, spin=spin):
                spin()

        while True:
            gevent.spawn(lambda it: None, Ends())
            gevent.sleep(0)

    shared = Event()
    for _ in range(3):
        threading.Thread(target=of_KIND, daemon=True).start()
    time.sleep(0.03)
    gevent.sleep(0)
"""

KINDS = ["sleep", "event", "native_event", "socket", "loop", "callback", "greenlet", "pool", "file"]
KINDS += ["wsgi", "end"]


@pytest.mark.parametrize("kind", KINDS)
def test_they_do_not_disturb_the_end(kind):
    script = textwrap.dedent(SCRIPT).replace("of_KIND", f"of_{kind}")
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
