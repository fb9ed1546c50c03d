"""What each greenlet has for itself: exceptions, contexts, frames, tracing, recursion."""

import contextvars
import gc
import sys
import threading
import traceback

import greenlet
import pytest
import gevent
from greenlet import getcurrent


def park():
    return getcurrent().parent.switch()


var = contextvars.ContextVar("var", default="unset")


def spawn(function, *args):
    g = greenlet.greenlet(function)
    return g, g.switch(*args)


def test_a_new_greenlet_handles_nothing():
    def look():
        assert sys.exc_info() == (None, None, None)
        try:
            raise OSError
        except OSError as error:
            return error

    try:
        raise KeyError("outer")
    except KeyError:
        _, inner = spawn(look)
        assert inner.__context__ is None
        assert sys.exc_info()[0] is KeyError


def test_each_handles_its_own_exception():
    main = getcurrent()

    def handler(kind):
        try:
            raise kind
        except kind:
            for _ in range(3):
                main.switch()
                assert sys.exc_info()[0] is kind
            with pytest.raises(kind):
                raise
        assert sys.exc_info() == (None, None, None)

    kinds = [ValueError, KeyError, OSError, IndexError]
    all_of_them = [spawn(handler, kind)[0] for kind in kinds]
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        for _ in range(3):
            for g in all_of_them:
                g.switch()
                assert sys.exc_info()[0] is ZeroDivisionError
    assert all(g.dead for g in all_of_them)


def test_generators_carry_their_exception_between_greenlets():
    main = getcurrent()

    def numbers():
        for i in range(4):
            try:
                raise ValueError(i)
            except ValueError as error:
                yield error
                assert sys.exc_info()[1] is error

    shared = numbers()

    def step():
        error = next(shared)
        main.switch(error.args[0])
        assert sys.exc_info() == (None, None, None)
        return "end"

    first = [spawn(step) for _ in range(4)]
    assert [value for _, value in first] == [0, 1, 2, 3]
    assert [g.switch() for g, _ in first] == ["end"] * 4
    with pytest.raises(StopIteration):
        next(shared)


def test_a_generator_that_is_parked_is_executing():
    main = getcurrent()

    def parked():
        main.switch()
        yield 1

    it = parked()
    g, _ = spawn(next, it)
    with pytest.raises(ValueError, match="already executing"):
        next(it)
    assert g.switch() == 1


def test_contexts():
    main = getcurrent()

    def work(value):
        assert var.get() == "unset", "it starts in an empty context"
        var.set(value)
        main.switch()
        assert var.get() == value
        contextvars.copy_context().run(main.switch)
        assert var.get() == value
        return "end"

    token = var.set("main's")
    try:
        workers = [spawn(work, i)[0] for i in range(5)]
        for _ in range(2):
            for g in workers:
                result = g.switch()
                assert var.get() == "main's"
        assert result == "end"
    finally:
        var.reset(token)


def test_gr_context():
    main = getcurrent()
    context = contextvars.copy_context()
    context.run(var.set, "given")
    g = greenlet.greenlet(lambda: main.switch(var.get()) and var.get())
    assert g.gr_context is None
    g.gr_context = context
    assert g.gr_context is context
    assert g.switch() == "given"
    assert g.gr_context is context
    other = contextvars.Context()
    other.run(var.set, "other")
    g.gr_context = other
    assert g.switch(True) == "other"
    for wrong in (1, "x", {}):
        with pytest.raises(TypeError, match="greenlet context must be"):
            g.gr_context = wrong
    with pytest.raises(AttributeError):
        del g.gr_context
    saved = main.gr_context
    main.gr_context = other
    try:
        assert var.get() == "other"
    finally:
        main.gr_context = saved


def names(frame):
    found = []
    while frame is not None:
        found.append(frame.f_code.co_name)
        frame = frame.f_back
    return found


def test_frames_of_the_parked():
    main = getcurrent()

    def inner(key):
        local = ("inner", key)
        main.switch(local)
        return key

    def outer():
        return sorted([2, 1], key=inner)

    g = greenlet.greenlet(outer)
    assert g.gr_frame is None
    g.switch()
    frame = g.gr_frame
    gc.collect()
    assert g.gr_frame is frame, "the same object every time"
    assert names(frame) == ["inner", "outer"], "through C code, and no further than its own"
    assert frame.f_locals["local"] == ("inner", 2)
    assert [entry.name for entry in traceback.extract_stack(frame)] == ["outer", "inner"]
    with pytest.raises(RuntimeError):
        frame.clear()
    g.switch()
    assert g.gr_frame is not frame
    assert g.switch() == [1, 2]
    assert g.gr_frame is None
    assert frame.f_lineno is not None, "it outlives the greenlet"
    assert main.gr_frame is None, "as it runs"
    h = greenlet.greenlet(lambda: names(main.gr_frame)[0])
    assert h.switch() == "test_frames_of_the_parked"


def test_the_first_frame_has_nothing_behind_it():
    _, back = spawn(lambda: sys._getframe().f_back)
    assert back is None


def test_trace_and_profile_functions_are_the_threads():
    main = getcurrent()
    events = []

    def traced():
        a = 1
        main.switch()
        return a

    def tracer(frame, event, arg):
        if frame.f_code.co_name == "traced":
            events.append(event)
        return tracer

    g = greenlet.greenlet(traced)
    old = sys.gettrace()
    sys.settrace(tracer)
    try:
        g.switch()
        g.switch()
    finally:
        sys.settrace(old)
    assert events[0] == "call"
    assert events.count("line") == 3
    assert events[-1] == "return"
    events.clear()

    def calling():
        main.switch()
        called()

    def called():
        pass

    g = greenlet.greenlet(calling)
    g.switch()
    sys.setprofile(lambda frame, event, arg: events.append((frame.f_code.co_name, event)))
    g.switch()
    sys.setprofile(None)
    assert ("called", "call") in events, "set while it was parked"
    assert ("called", "return") in events


def test_each_has_its_own_depth():
    main = getcurrent()

    def depth(n):
        if n == 0:
            main.switch("down")
            return 0
        return depth(n - 1) + 1

    def endless():
        endless()

    limit = sys.getrecursionlimit()
    deep = [spawn(depth, limit - 100)[0] for _ in range(20)]
    with pytest.raises(RecursionError):
        endless()
    gc.collect()
    for g in deep:
        with pytest.raises(RecursionError):
            spawn(endless)
        assert g.switch() == limit - 100


def test_raising_the_limit_counts_for_the_parked():
    main = getcurrent()

    def down(n):
        return down(n - 1) + 1 if n else 0

    # Before 3.11 each call takes C stack.
    depth = 3000 if sys.version_info >= (3, 11) else 1400

    def run():
        main.switch()
        return down(depth)

    g, _ = spawn(run)
    old = sys.getrecursionlimit()
    sys.setrecursionlimit(5000)
    try:
        assert g.switch() == depth
    finally:
        sys.setrecursionlimit(old)


def test_collection_with_many_parked():
    main = getcurrent()

    class Node:
        pass

    def work():
        node = Node()
        node.self = node
        main.switch()
        node.more = [node]
        main.switch()

    count = 500
    many = [spawn(work)[0] for _ in range(count)]
    for _ in range(3):
        gc.collect()
    assert sum(isinstance(o, Node) for o in gc.get_objects()) == count
    for g in many:
        g.switch()
    gc.collect()
    for g in many:
        g.switch()
    assert all(g.dead for g in many)
    gc.collect()
    assert not any(isinstance(o, Node) for o in gc.get_objects())


def test_deallocation_chains_with_switches():
    """An object's __del__ switches while a long chain is being freed."""
    main = getcurrent()
    seen = []

    class Link:
        def __init__(self, n, following):
            self.n, self.following = n, following

        def __del__(self):
            if self.n % 1000 == 0:
                seen.append(helper.switch(self.n))

    def helping(n):
        while True:
            n = main.switch(n)

    helper = greenlet.greenlet(helping)
    chain = None
    for i in range(1, 20_001):
        chain = Link(i, [chain])
    del chain
    gc.collect()
    assert sorted(seen) == list(range(1000, 20_001, 1000))


def test_greenlets_in_threads_do_not_mix():
    def thread(out):
        here = getcurrent()
        assert here.parent is None
        total = [0]

        def work():
            for _ in range(50):
                total[0] += 1
                here.switch()

        workers = [spawn(work)[0] for _ in range(10)]
        while not all(g.dead for g in workers):
            for g in workers:
                g.switch()
        out.append((here, total[0]))

    out = []
    threads = [threading.Thread(target=thread, args=(out,)) for _ in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [n for _, n in out] == [500] * 6
    assert len({id(main) for main, _ in out}) == 6


def test_other_threads_greenlets_refuse():
    box = {}
    ready, done = threading.Event(), threading.Event()

    def thread():
        box["parked"], _ = spawn(park)
        box["new"] = greenlet.greenlet(lambda: None)
        box["main"] = getcurrent()
        ready.set()
        done.wait(10)

    t = threading.Thread(target=thread)
    t.start()
    ready.wait(10)
    try:
        for name in ("parked", "new", "main"):
            with pytest.raises(greenlet.error, match="Cannot switch to a different thread") as e:
                box[name].switch()
            assert "Current:" in str(e.value)
            assert "Expected:" in str(e.value)
        with pytest.raises(ValueError, match="cannot get context of a greenlet that is running"):
            _ = box["main"].gr_context
        mine, _ = spawn(park)
        with pytest.raises(ValueError, match="parent cannot be on a different thread"):
            mine.parent = box["main"]
        box["new"].parent = getcurrent()
        assert box["new"].switch() is None, "one that never ran may move"
    finally:
        done.set()
        t.join()
    for name in ("parked", "main"):
        with pytest.raises(greenlet.error, match="which happens to have exited"):
            box[name].switch()
        assert box[name].dead
        assert "(thread exited) dead" in repr(box[name])


def test_a_constructor_called_again():
    def inside():
        gevent.getcurrent().__init__(nap)

    def nap(*args):
        gevent.sleep(0.001)
        return args

    late = "run cannot be set after the start of the greenlet"
    running = gevent.spawn(nap, 1)
    # Not started: it runs what came last.
    running.__init__(nap, 2)
    gevent.sleep(0)
    for again in ((nap, 3), (), (5,)):
        with pytest.raises(AttributeError, match=late):
            running.__init__(*again)
    assert (running.args, running.get(timeout=30)) == ((2,), (2,))
    with pytest.raises(AttributeError, match=late):
        running.__init__(nap, 4)
    assert running.value == (2,)
    with pytest.raises(AttributeError, match=late):
        gevent.spawn(inside).get(timeout=30)
    raw = gevent.spawn_raw(nap)
    gevent.sleep(0)
    with pytest.raises((AttributeError, TypeError)):
        raw.__init__(nap)
