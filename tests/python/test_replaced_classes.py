"""Programs that put subclasses in the place of gevent's classes, as ddtrace does with `Greenlet`.

A class that finds its base by the name in a module then finds its own subclass, and recurses or
calls it with the wrong arguments.
"""

import ast
import pathlib

import pytest
from scripts import lines_of

import gevent

REPLACE = """
import sys
import gevent, gevent.backdoor, gevent.pool, gevent.pywsgi, gevent.queue, gevent.server
import gevent.socket, gevent.threadpool

def replace(*classes):
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "gevent"]
    for old in classes:
        def init(self, *args, __old=old, **kwargs):
            __old.__init__(self, *args, **kwargs)

        new = type("My" + old.__name__, (old,), {"__init__": init})
        for module in modules:
            for name, value in list(vars(module).items()):
                if value is old:
                    setattr(module, name, new)
"""


def test_greenlets_and_the_iterators_of_pools():
    assert lines_of(
        """
        import gevent, gevent.greenlet, gevent.pool, gevent._imap

        class TracedGreenlet(gevent.Greenlet):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)

        class TracedUnordered(gevent.pool.IMapUnordered):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)

        class TracedOrdered(TracedUnordered, gevent.pool.IMap):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)

        for module in (gevent, gevent.greenlet, gevent.pool, gevent._imap):
            module.Greenlet = TracedGreenlet
        gevent.pool.Group.greenlet_class = TracedGreenlet
        for module in (gevent.pool, gevent._imap):
            module.IMap, module.IMapUnordered = TracedOrdered, TracedUnordered
        for pool in (gevent.pool.Pool(2), gevent.pool.Group()):
            print(list(pool.imap(abs, [-1, -2, -3])))
            print(sorted(pool.imap_unordered(abs, [-1, -2, -3])))
            print(pool.map(abs, [-1]), pool.apply(abs, (-1,)), pool.map_async(abs, [-1]).get())
        """
    ) == ["[1, 2, 3]", "[1, 2, 3]", "[1] 1 [1]"] * 2


def test_queues():
    printed = lines_of(
        REPLACE
        + """
from gevent import queue
replace(queue.SimpleQueue, queue.Queue, queue.JoinableQueue, queue.UnboundQueue,
        queue.PriorityQueue, queue.LifoQueue)
for kind in (queue.SimpleQueue, queue.Queue, queue.JoinableQueue, queue.UnboundQueue,
             queue.PriorityQueue, queue.LifoQueue):
    one = kind()
    one.put(1)
    print(one.get(), kind.__name__)
"""
    )
    assert [line.split()[0] for line in printed] == ["1"] * 6


@pytest.mark.ours
def test_servers_and_pools():
    printed = lines_of(
        REPLACE
        + """
replace(gevent.server.BaseServer, gevent.server.StreamServer, gevent.pywsgi.WSGIServer,
        gevent.pool.Group, gevent.pool.Pool, gevent.threadpool.ThreadPool, gevent.Greenlet)

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]

server = gevent.pywsgi.WSGIServer(("127.0.0.1", 0), application, log=None)
server.start()
with gevent.socket.create_connection(("127.0.0.1", server.server_port)) as client:
    client.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
    with client.makefile("rb") as answer:
        print(answer.read().splitlines()[0].decode())
server.stop()
pool = gevent.pool.Pool(2)
print(pool.map(abs, [-1]), type(pool).__name__)
threads = gevent.threadpool.ThreadPool(1)
print(threads.apply(abs, (-1,)), threads.spawn(abs, -2).get(), type(threads).__name__)
threads.kill()
backdoor = gevent.backdoor.BackdoorServer(("127.0.0.1", 0))
backdoor.start()
backdoor.stop()
"""
    )
    assert printed == ["HTTP/1.1 200 OK", "[1] MyPool", "1 2 MyThreadPool"]


def lookups(tree):
    """Where a method names its own class or a base of it, as the module has them, to ask for
    something."""
    of_the_module = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            of_the_module.update(alias.asname or alias.name for alias in node.names)
    for cls in ast.walk(tree):
        if not isinstance(cls, ast.ClassDef):
            continue
        # Not what a function has made or got: nobody replaces that.
        names = {cls.name, *map(ast.unparse, cls.bases)} & of_the_module
        methods = [f for f in cls.body if isinstance(f, ast.FunctionDef)]
        for node in (node for f in methods for part in f.body for node in ast.walk(part)):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in names:
                yield node.lineno, ast.unparse(node)


@pytest.mark.ours
def test_no_method_finds_its_class_or_base_by_a_name_of_the_module():
    root = pathlib.Path(gevent.__file__).parent
    found = [
        f"{path.relative_to(root)}:{line}: {what}"
        for path in sorted(root.rglob("*.py"))
        for line, what in lookups(ast.parse(path.read_text()))
    ]
    assert found == []
