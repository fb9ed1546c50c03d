"""Programs whose first line is `patch_all()`: what our modules then take from the standard library,
and that a wait which nobody can end is `LoopExit` all the same. In processes of their own."""

import pytest
from scripts import lines_of

PATCHED = "from gevent import monkey; monkey.patch_all()\n"

WAITS = '''
import concurrent.futures as futures
import queue
import subprocess
import threading

import gevent
from gevent import event, lock, pool
from gevent import queue as gqueue
from gevent.exceptions import LoopExit
from gevent.threadpool import ThreadPoolExecutor

def twice(call, *args):
    call(*args)
    call(*args)

def taken(acquire):
    """Have another greenlet take it."""
    gevent.spawn(acquire).join()
    acquire()

def stuck():
    return gevent.spawn(event.Event().wait)

def started(thread):
    thread.start()
    return thread

def full():
    made = pool.Pool(1)
    made.add(stuck())
    return made

def with_one_task(made):
    made.put(1)
    made.join()

def notified(made):
    with made:
        made.wait()

def after_a_child():
    subprocess.Popen(["true"]).wait()
    event.Event().wait()

WAYS = {
    "event": lambda: event.Event().wait(),
    "result": lambda: event.AsyncResult().get(),
    "result's wait": lambda: event.AsyncResult().wait(),
    "semaphore": lambda: lock.Semaphore(0).acquire(),
    "semaphore's wait": lambda: lock.Semaphore(0).wait(),
    "bounded semaphore": lambda: twice(lock.BoundedSemaphore(1).acquire),
    "rlock": lambda: taken(lock.RLock().acquire),
    "queue": lambda: gqueue.Queue().get(),
    "queue's peek": lambda: gqueue.Queue().peek(),
    "full queue": lambda: twice(gqueue.Queue(1).put, 1),
    "simple queue": lambda: gqueue.SimpleQueue().get(),
    "priority queue": lambda: gqueue.PriorityQueue().get(),
    "stack": lambda: gqueue.LifoQueue().get(),
    "joined queue": lambda: with_one_task(gqueue.JoinableQueue()),
    "channel": lambda: gqueue.Channel().get(),
    "channel's put": lambda: gqueue.Channel().put(1),
    "join": lambda: stuck().join(),
    "get": lambda: stuck().get(),
    "joinall": lambda: gevent.joinall([stuck()]),
    "wait": lambda: gevent.wait([event.Event()]),
    "wait for a greenlet": lambda: gevent.wait([stuck()]),
    "iwait": lambda: list(gevent.iwait([event.Event()])),
    "pool's join": lambda: full().join(),
    "full pool": lambda: full().spawn(print),
    "map": lambda: pool.Pool(1).map(lambda _: event.Event().wait(), [1, 2]),
    "imap": lambda: list(pool.Pool(1).imap(lambda _: event.Event().wait(), [1, 2])),
    "the hub": lambda: gevent.get_hub().switch(),
    "a watcher": lambda: gevent.get_hub().wait(gevent.get_hub().loop.async_(ref=False)),
    "threading's lock": lambda: twice(threading.Lock().acquire),
    "threading's rlock": lambda: taken(threading.RLock().acquire),
    "threading's event": lambda: threading.Event().wait(),
    "threading's condition": lambda: notified(threading.Condition()),
    "threading's semaphore": lambda: threading.Semaphore(0).acquire(),
    "threading's barrier": lambda: threading.Barrier(2).wait(),
    "a thread": lambda: started(threading.Thread(target=event.Event().wait, daemon=True)).join(),
    "the queue of the library": lambda: queue.Queue().get(),
    "its simple queue": lambda: queue.SimpleQueue().get(),
    "its join": lambda: with_one_task(queue.Queue()),
    "a future": lambda: futures.Future().result(),
    "several futures": lambda: futures.wait([futures.Future()]),
    "after a child": after_a_child,
}

def look():
    for name, wait in WAYS.items():
        try:
            wait()
        except LoopExit:
            continue
        print("no LoopExit:", name)
    print("looked")
'''


def test_a_wait_that_nobody_can_end():
    assert lines_of(PATCHED + WAITS + "look()") == ["looked"]


def test_the_same_beside_threads_that_are_gevent_s_own():
    code = """
import warnings; warnings.simplefilter("ignore")
gevent.config.monitor_thread = True
gevent.config.max_blocking_time = 1000
gevent.get_hub().start_periodic_monitoring_thread()
gevent.get_hub().threadpool.apply(int)
executor = ThreadPoolExecutor(1)
executor.submit(int).result()
look()
"""
    assert lines_of(PATCHED + WAITS + code) == ["looked"]


@pytest.mark.parametrize(
    "make, use, wait",
    [
        ("lock.Semaphore(1)", "it.acquire()", "it.acquire()"),
        ("lock.BoundedSemaphore(1)", "it.acquire()", "it.acquire()"),
        ("event.Event()", "it.set()", "(it.clear(), it.wait())"),
        ("gqueue.Queue()", "it.put(1)", "(it.get(), it.get())"),
        ("threading.Lock()", "it.acquire()", "it.acquire()"),
        ("threading.Event()", "it.set()", "(it.clear(), it.wait())"),
        ("queue.Queue()", "it.put(1)", "(it.get(), it.get())"),
    ],
)
@pytest.mark.parametrize("by", ["pool", "thread"])
def test_an_object_that_a_thread_has_used(make, use, wait, by):
    if by == "pool":
        call = "gevent.get_hub().threadpool.apply(used)"
    else:
        call = """

import sys
begun = []
def thread():
    begun.append(used())
ident = monkey.get_original("_thread", "start_new_thread")(thread, ())
while not begun or ident in sys._current_frames():
    gevent.sleep(0.001)
"""
    code = f"""
it = {make}
def used():
    {use}
{call}
try:
    {wait}
except LoopExit:
    print("LoopExit")
"""
    assert lines_of(PATCHED + WAITS + code) == ["LoopExit"]


@pytest.mark.ours
@pytest.mark.parametrize(
    "make, wait, end",
    [
        ("event.Event()", "it.wait()", "it.set()"),
        ("lock.Semaphore(0)", "it.acquire()", "it.release()"),
        ("gqueue.Queue()", "it.get()", "it.put(1)"),
        ("event.AsyncResult()", "it.get()", "it.set(1)"),
        ("threading.Event()", "it.wait()", "it.set()"),
    ],
)
def test_a_thread_that_is_alive_may_end_it(make, wait, end):
    code = f"""
go = monkey.get_original("_thread", "allocate_lock")()
go.acquire()
it = {make}
waits = []
def thread():
    go.acquire()
    {end}
monkey.get_original("_thread", "start_new_thread")(thread, ())
# The thread's turn comes when nothing is left that this one could do.
gevent.spawn_later(0.01, go.release)
{wait}
print("woken")
"""
    assert lines_of(PATCHED + WAITS + code) == ["woken"]


def test_in_a_forked_child():
    code = """
import os
child = os.fork()
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    try:
        event.Event().wait()
    except LoopExit:
        os._exit(7)
"""
    assert lines_of(PATCHED + WAITS + code) == ["7"]


@pytest.mark.ours
def test_who_waits_in_native_code():
    code = """
e, q = event.Event(), gqueue.Queue()
from greenlet import greenlet
named = [gevent.spawn(e.wait), gevent.spawn(q.get), gevent.spawn(lambda: e.wait())]
named.append(gevent.spawn(named[0].join))
raw = [greenlet(e.wait), greenlet(lambda: e.wait(), gevent.get_hub())]
for one in raw:
    gevent.get_hub().loop.run_callback(one.switch)
try:
    event.Event().wait()
except LoopExit as error:
    text = str(error)
for one in named + raw:
    [line] = [line for line in text.splitlines() if line.startswith(repr(one))]
    print(line.removeprefix(repr(one)).split(",")[0])
"""
    native, python = " in native code", " in <lambda>"
    assert lines_of(PATCHED + WAITS + code) == [native, native, python, native, native, python]


# What every module of ours has of the standard library's, by the place where it is.
LIBRARY = '''
import importlib, pkgutil, sys, types, warnings
warnings.simplefilter("ignore")

def modules():
    import gevent
    for found in pkgutil.walk_packages(gevent.__path__, "gevent."):
        if found.name.endswith(("__main__", "bench.worker", "gunicorn")):
            continue
        try:
            importlib.import_module(found.name)
        except ImportError as error:
            # What needs a package that is not installed here.
            assert "gevent" not in (error.name or ""), error
    return {n: m for n, m in sys.modules.items() if n.split(".")[0] == "gevent" and m}

def values(module):
    """(place, value): globals, attributes of classes, defaults and closures of functions."""
    seen = set()
    todo = list(vars(module).items())
    while todo:
        place, value = todo.pop()
        yield place, value
        if getattr(value, "__module__", None) != module.__name__ or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, type):
            todo += [(f"{place}.{name}", member) for name, member in vars(value).items()]
        value = getattr(value, "__func__", value)
        if isinstance(value, types.FunctionType):
            held = list(value.__defaults__ or ()) + list((value.__kwdefaults__ or {}).values())
            for cell in value.__closure__ or ():
                try:
                    held.append(cell.cell_contents)
                except ValueError:
                    pass
            todo += [(f"{place}()", one) for one in held]

def originals():
    """The places of what a patch replaces, as it was before; by identity."""
    found = []
    names = {}
    for name, items in monkey.saved.items():
        if name in sys.modules:
            for item, value in items.items():
                names.setdefault(id(value), f"{name}.{item}")
    for name, module in modules().items():
        for place, value in values(module):
            if value is not None and id(value) in names:
                found.append(f"{name}:{place} = {names[id(value)]}")
    return sorted(set(found))
'''


@pytest.mark.ours
def test_our_modules_take_what_was_there_before_the_patch():
    show = "print(*originals(), sep='\\n')"
    after = lines_of(PATCHED + LIBRARY + show)
    late = "from gevent import monkey\n" + LIBRARY + "modules(); monkey.patch_all()\n"
    before = lines_of(late + show)
    assert "gevent.threadpool:get_thread_ident = _thread.get_ident" in after
    assert before == after
