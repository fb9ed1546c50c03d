"""A hub that ends while somebody uses it, and what a thread leaves behind when it ends."""

import pytest
from scripts import lines_of, run

WAITS = {
    "sleep": "gevent.sleep(0.1)",
    "sleep_0": "gevent.sleep(0)",
    "event": "Event().wait(0.1)",
    "event_for_ever": "Event().wait()",
    "event_timeout_object": "Event().wait(gevent.Timeout(0.1))",
    "async_result": "AsyncResult().get(timeout=0.2)",
    "semaphore": "taken.acquire(timeout=0.2)",
    "rlock": "locked.acquire(timeout=0.2)",
    "queue_get": "Queue().get(timeout=0.2)",
    "queue_put": "full.put(2, timeout=0.2)",
    "channel_get": "Channel().get(timeout=0.2)",
    "channel_put": "Channel().put(1, timeout=0.2)",
    "join": "sleeper.join(0.2)",
    "get": "sleeper.get(timeout=0.2)",
    "kill": "sleeper.kill()",
    "joinall": "gevent.joinall([sleeper], timeout=0.2)",
    "wait": "gevent.wait([Event()], timeout=0.2)",
    "recv": "left.recv(1)",
    "send": "left.sendall(b'x' * 10_000_000)",
    "accept": "listener.accept()",
    "select": "select.select([left], [], [], 0.2)",
    "threadpool": "gevent.get_hub().threadpool.apply(len, ((),))",
    "lookup": "native.getaddrinfo('no-such-name.invalid', 80)",
    "file": "open_file.read()",
    "switch": "gevent.get_hub().switch()",
}

PROGRAM = """
    import gevent, tempfile
    from gevent import select, socket
    from gevent.event import AsyncResult, Event
    from gevent.fileobject import FileObject
    from gevent.lock import RLock, Semaphore
    from gevent.queue import Channel, Queue
    from gevent.resolver.ares import Resolver

    native = Resolver()
    taken = Semaphore(0)
    locked = RLock()
    locked.acquire()
    full = Queue(1)
    full.put(1)
    left, right = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    left.settimeout(0.2)
    listener.settimeout(0.2)
    with tempfile.NamedTemporaryFile(delete=False) as made:
        made.write(b"text")
    open_file = FileObject(made.name, "rb")
    sleeper = gevent.spawn(gevent.sleep, 0.1)

    class Ends(gevent.Greenlet):
        def switch_out(self):
            if not hasattr(self, "done"):
                self.done = True
                gevent.get_hub().destroy(destroy_loop=DESTROY)

    def wait():
        try:
            WAIT
        except BaseException as error:
            print("raised", type(error).__name__)

    g = Ends(wait)
    g.start()
    for _ in range(3):
        try:
            gevent.sleep(0.01)
        except BaseException as error:
            print("main", type(error).__name__)
    for entry in (g.switch, lambda: g.throw(ValueError), lambda: gevent.sleep(0.01)):
        try:
            entry()
        except BaseException as error:
            print("entered", type(error).__name__)
    print("end")
"""


@pytest.mark.ours
@pytest.mark.parametrize(
    ("wait", "destroy"), [(w, True) for w in WAITS] + [("event", False), ("recv", False)]
)
def test_switch_out_may_destroy_the_hub(wait, destroy):
    program = PROGRAM.replace("DESTROY", str(destroy)).replace("WAIT", WAITS[wait])
    done = run(program)
    assert done.code in (0, 1), f"{done.code}\n{done.out}\n{done.err}"
    assert done.lines[-1:] == ["end"] or "Error" in done.err, f"{done.out}\n{done.err}"
    assert "panicked" not in done.err


@pytest.mark.ours
def test_main_may_destroy_and_free_the_hub_that_it_waits_in():
    lines = lines_of(
        """
        import gc, weakref
        import gevent
        from gevent.event import Event

        main = gevent.getcurrent()
        hub = weakref.ref(gevent.get_hub())

        def switch_out():
            del main.switch_out
            gevent.get_hub().destroy(destroy_loop=True)
            gc.collect()

        main.switch_out = switch_out
        for wait in (lambda: gevent.sleep(0.01), lambda: Event().wait(0.01)):
            try:
                wait()
            except BaseException as error:
                print(type(error).__name__)
        gc.collect()
        print(hub() is None)
        gevent.sleep(0.01)
        print("end")
        """
    )
    assert lines[-1] == "end"


LEAVES = {
    "nothing": "",
    "sleeper": "gevent.spawn(gevent.sleep, 100); gevent.sleep(0)",
    "waiter": "gevent.spawn(Event().wait); gevent.sleep(0)",
    "loop": "gevent.core.loop(); gevent.get_hub().destroy(destroy_loop=False)",
    "two_hubs": (
        "gevent.spawn(gevent.sleep, 100); gevent.sleep(0); gevent.get_hub().destroy();"
        " gevent.sleep(0)"
    ),
}


@pytest.mark.ours
@pytest.mark.parametrize("end", ["", "gevent.get_hub().destroy()"], ids=["alone", "destroyed"])
@pytest.mark.parametrize("leaves", LEAVES)
def test_a_thread_that_ends_leaves_no_descriptor(leaves, end):
    lines = lines_of(
        f"""
        import gc, os, threading
        import gevent, gevent.core
        from gevent.event import Event

        def used():
            gevent.sleep(0)
            {LEAVES[leaves] or "pass"}
            {end or "pass"}

        def descriptors():
            gc.collect()
            gevent.sleep(0)
            return len(os.listdir("/proc/self/fd"))

        def rounds(n):
            for _ in range(n):
                thread = threading.Thread(target=used)
                thread.start()
                thread.join()

        rounds(3)
        before = descriptors()
        rounds(40)
        print(descriptors() - before)
        """
    )
    assert lines == ["0"]
