"""A greenlet that gets no stack ends with a MemoryError of its own, however it was to start.

Each program runs with stacks of 64 MiB, one a mapping, and takes its address space away: there is
room for what Python allocates, but for no stack.
"""

import pytest
from scripts import lines_of

pytestmark = pytest.mark.ours

BEGIN = """
import contextlib, resource, sys
import greenlet
import gevent
from gevent.event import Event
from gevent.pool import Group, Pool

gevent.get_hub().exception_stream = None
gevent.sleep(0)

def size():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()

@contextlib.contextmanager
def no_stacks(take_free=True):
    held, end = [], Event()
    resource.setrlimit(resource.RLIMIT_AS, (size() + (48 << 20), resource.RLIM_INFINITY))
    try:
        # Those that ended before have left their stacks.
        while take_free:
            g = gevent.spawn(end.wait)
            gevent.sleep(0)
            if g.dead:
                break
            held.append(g)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        end.set()

def never(*args):
    raise SystemError("it has run")

def show(g):
    print(type(g.exception).__name__, g.dead, g.ready(), g.started, bool(g))
"""
ENDED = "MemoryError True True False False"


def program(body):
    return lines_of(BEGIN + body, GEVENT_STACK_SIZE="64m")


WAYS = {
    "spawn": "gevent.spawn(never)",
    "spawn_later": "gevent.spawn_later(0.001, never)",
    "start": "g = gevent.Greenlet(never); g.start()",
    "start_later": "g = gevent.Greenlet(never); g.start_later(0.001)",
    "pool": "pool.spawn(never)",
    "group": "group.spawn(never)",
    "switch": "g = gevent.Greenlet(never); gevent.get_hub().loop.run_callback(g.switch)",
    "own run": "class G(gevent.Greenlet):\n    def run(self): never()\ng = G(); g.start()",
    "own _run": "class G(gevent.Greenlet):\n    def _run(self): never()\ng = G(); g.start()",
    "own switch": "class G(gevent.Greenlet):\n"
    "    def switch(self, *args): return super().switch(*args)\n"
    "g = G(never); g.start()",
}


@pytest.mark.parametrize("way", WAYS)
def test_whoever_waits_is_told(way):
    how = WAYS[way] if "g = " in WAYS[way] else "g = " + WAYS[way]
    lines = program(f"""
pool, group = Pool(1), Group()
told, later = [], Event()
with no_stacks():
{chr(10).join("    " + line for line in how.splitlines())}
    g.rawlink(lambda g: told.append("raw"))
    g.link(lambda g: (told.append("spawned"), later.set()))
    g.link_exception(lambda g: told.append("exception"))
    g.link_value(lambda g: told.append("value"))
    g.join()
    later.wait()
    show(g)
    try:
        g.get()
    except MemoryError as error:
        print(error)
    print([type(x.exception).__name__ for x in gevent.joinall([g])])
    gevent.sleep(0)
    print(told)
print(len(pool), pool.free_count(), len(group), pool.join(30), group.join(30))
print(gevent.spawn(len, "abc").get(), pool.spawn(len, "ab").get())
""")
    assert lines == [
        ENDED,
        "no memory for the stack of a greenlet",
        "['MemoryError']",
        "['raw', 'spawned', 'exception']",
        "0 1 0 True True",
        "3 2",
    ]


def test_raw_greenlets_end_too():
    assert program("""
caught = []
with no_stacks():
    gevent.get_hub().handle_error = lambda context, kind, *rest: caught.append(kind.__name__)
    g = gevent.spawn_raw(never)
    gevent.sleep(0)
    print(g.dead, bool(g), caught)

    raw = greenlet.greenlet(never)
    try:
        raw.switch(1)
    except MemoryError as error:
        print(error, raw.dead, bool(raw))
    # As any dead one: what it is sent goes to its parent.
    print(raw.switch(2))

    outer = greenlet.greenlet(never)
    inner = greenlet.greenlet(never, outer)
    try:
        inner.switch()
    except MemoryError:
        print(inner.dead, outer.dead)

    raw = greenlet.greenlet(never)
    try:
        raw.throw(KeyError("mine"))
    except KeyError as error:
        print(error, raw.dead)
    raw = greenlet.greenlet(never)
    print(repr(raw.throw()), raw.dead)
""") == [
        "True False ['MemoryError']",
        "no memory for the stack of a greenlet True False",
        "2",
        "True True",
        "'mine' True",
        "GreenletExit() True",
    ]


def test_kills_need_no_stack():
    assert program("""
with no_stacks():
    for state in "new", "queued", "timer":
        g = gevent.Greenlet(never)
        if state == "queued":
            g.start()
        elif state == "timer":
            g.start_later(3600)
        g.kill(timeout=30)
        print(repr(g.value), g.dead)
        g = gevent.spawn(never)
        gevent.kill(g, KeyError("k"))
        g.join()
        print(repr(g.exception), g.dead)
""") == ["GreenletExit() True", "KeyError('k') True"] * 3


def test_the_results_of_maps_come():
    assert program("""
pool = Pool(3)
def outcome(call):
    try:
        return list(call())
    except MemoryError:
        return "MemoryError"

with no_stacks():
    for name in "map", "imap", "imap_unordered":
        print(name, outcome(lambda: getattr(pool, name)(abs, [1, 2])))
    print(outcome(lambda: [pool.apply(abs, (1,))]))
    print(outcome(lambda: [pool.apply_async(abs, (1,)).get()]))
print(list(pool.imap(abs, [1, -2])), sorted(pool.imap_unordered(abs, [1, -2])), len(pool))

ready = Pool(3)
pool = Pool(3)
results = pool.imap_unordered(abs, [-1])
gevent.sleep(0)
print(next(results))

# The greenlet that reads the items has a stack, those of the items have none.
go = Event()
def items():
    go.wait()
    yield 1
    # It keeps its stack.
    Event().wait()
results = pool.imap(abs, items())
gevent.sleep(0)
with no_stacks():
    go.set()
    print(outcome(lambda: [next(results)]))
killed = pool.imap(abs, [1])
killed.kill()
print(list(killed))
""") == [
        "map MemoryError",
        "imap MemoryError",
        "imap_unordered MemoryError",
        "MemoryError",
        "MemoryError",
        "[1, 2] [1, 2] 0",
        "1",
        "MemoryError",
        "[]",
    ]


def test_a_hub_is_tried_again():
    assert program("""
import threading

def run():
    with no_stacks(take_free=False):
        try:
            gevent.sleep(0)
        except MemoryError:
            print("none")
    gevent.sleep(0)
    print("slept", gevent.spawn(abs, -1).get())

thread = threading.Thread(target=run)
thread.start()
thread.join()
""") == ["none", "slept 1"]


def test_threads():
    assert program("""
from gevent import monkey
monkey.patch_all()
import threading, time
from gevent.threadpool import ThreadPool

with no_stacks():
    try:
        threading.Thread(target=never).start()
    except RuntimeError as error:
        print(error)
pool = ThreadPool(1)
with no_stacks():
    print(pool.apply(abs, (-3,)))
print(pool.apply(abs, (-4,)))
pool.kill()
""") == ["can't start new thread", "3", "4"]


SERVERS = {
    "stream": "StreamServer(address, lambda sock, _: sock.sendall(b'answer'), spawn={spawn})",
    "wsgi": "WSGIServer(address, app, log=None, error_log=None, spawn={spawn})",
    "handlers": "WSGIServer(address, app, handler_class=Handler, log=None, error_log=None, "
    "spawn={spawn})",
}


@pytest.mark.parametrize("spawn", ["'default'", "'raw'", "2"])
@pytest.mark.parametrize("server", SERVERS)
def test_servers_give_up_the_connection_and_go_on(server, spawn):
    making = SERVERS[server].format(spawn=spawn)
    assert program(f"""
import socket as plain
from gevent import socket
from gevent.server import StreamServer
from gevent.pywsgi import WSGIHandler, WSGIServer

class Handler(WSGIHandler):
    pass

def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "6")])
    return [b"answer"]

def ask():
    sock = socket.create_connection(("127.0.0.1", server.server_port))
    sock.settimeout(30)
    data = b""
    try:
        sock.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        while piece := sock.recv(1000):
            data += piece
    except ConnectionError:
        pass
    sock.close()
    return data

address = ("127.0.0.1", 0)
server = {making}
server.start()
print(ask()[-6:])
with no_stacks():
    print([ask() for _ in range(5)])
print([ask()[-6:] for _ in range(3)])
if server.pool is not None:
    server.pool.join(30)
    print(len(server.pool), server.pool.free_count(), server.full())
server.stop()
""") == ["b'answer'", str([b""] * 5), str([b"answer"] * 3)] + ["0 2 False"] * (spawn == "2")
