"""Small modules: locals, identifiers, settings' helpers, stored tracebacks, listings, tracers."""

import gc
import io
import traceback
import weakref

import pytest

import gevent
from gevent import _tblib, _util, pool, queue, util
from gevent._ident import IdentRegistry
from gevent.event import AsyncResult, Event
from gevent.local import all_local_dicts_for_greenlet, local
from gevent.lock import BoundedSemaphore, DummySemaphore, RLock, Semaphore


class TestLocal:
    def test_each_greenlet_has_its_own_values(self):
        one = local()
        one.name = "main"

        def use(name):
            assert not hasattr(one, "name")
            one.name = name
            gevent.sleep(0)
            return one.name

        greenlets = [gevent.spawn(use, name) for name in "abc"]
        assert [greenlet.get(timeout=30) for greenlet in greenlets] == list("abc")
        assert one.name == "main"

    def test_init_is_called_once_in_each_greenlet(self):
        calls = []

        class Mine(local):
            def __init__(self, argument, *, keyword):
                calls.append(gevent.getcurrent())
                self.got = (argument, keyword)

        one = Mine(1, keyword=2)
        assert one.got == (1, 2)
        greenlet = gevent.spawn(lambda: (one.got, one.got))
        assert greenlet.get(timeout=30) == ((1, 2), (1, 2))
        assert calls == [gevent.getcurrent(), greenlet]

    def test_values_go_with_the_greenlet(self):
        one = local()

        class Value:
            pass

        def use():
            one.value = Value()

        greenlet = gevent.spawn(use)
        greenlet.join(30)
        gevent.sleep(0)
        gc.collect()
        assert not any(isinstance(ob, Value) for ob in gc.get_objects())
        assert all_local_dicts_for_greenlet(greenlet) == []

    def test_descriptors_work_as_in_any_class(self):
        class Mine(local):
            shared = "class"

            @property
            def double(self):
                return self.value * 2

            @double.setter
            def double(self, value):
                self.value = value // 2

        one = Mine()
        one.double = 10
        assert (one.value, one.double) == (5, 10)
        assert "double" not in one.__dict__
        one.shared = "instance"
        assert one.shared == "instance"
        del one.shared
        assert one.shared == "class"
        with pytest.raises(AttributeError):
            del one.nothing


def test_idents_are_the_smallest_free_numbers():
    class Thing:
        pass

    registry = IdentRegistry()
    things = [Thing() for _ in range(4)]
    assert [registry.get_ident(thing) for thing in things] == [0, 1, 2, 3]
    del things[1:3]
    gc.collect()
    assert len(registry) == 2
    more = [Thing() for _ in range(3)]
    assert [registry.get_ident(thing) for thing in more] == [1, 2, 4]
    assert registry.get_ident(things[0]) == 0


def test_lazy_is_computed_once_and_readproperty_each_time():
    class Thing:
        count = 0

        @_util.Lazy
        def lazy(self):
            "Documented."
            self.count += 1
            return self.count

        @_util.readproperty
        def read(self):
            self.count += 1
            return self.count

    thing = Thing()
    assert (thing.lazy, thing.lazy) == (1, 1)
    assert (thing.read, thing.read) == (2, 3)
    thing.read = "assigned"
    assert thing.read == "assigned"
    assert Thing.lazy.__doc__ == "Documented."


def test_copy_globals():
    import types

    source = types.ModuleType("source")
    source.one, source.two, source.__all__ = 1, 2, ["one"]
    target = {"copy_globals": None}
    assert sorted(_util.copy_globals(source, target, names_to_ignore=["two"])) == [
        "__all__",
        "one",
    ]
    assert target == {"one": 1, "__all__": ["one"]}
    with pytest.raises(AttributeError):
        _util.copy_globals(source, {}, only_names=["three"])
    found = {}
    _util.copy_globals(source, found, only_names=["one", "three"], ignore_missing_names=True)
    assert found == {"one": 1}


def fail():
    raise KeyError("inside")


def test_stored_traceback_prints_like_the_original():
    try:
        fail()
    except KeyError as ex:
        original = traceback.format_tb(ex.__traceback__)
        stored = _tblib.dump_traceback(ex.__traceback__)
    assert isinstance(stored, bytes)
    again = traceback.format_tb(_tblib.load_traceback(stored))
    places = [line.splitlines()[0] for line in original]
    assert [line.splitlines()[0] for line in again] == places
    assert _tblib.load_traceback(_tblib.dump_traceback(None)) is None


def test_result_raises_with_the_traceback_of_the_failure():
    result = AsyncResult()
    gevent.spawn(fail).link(result)
    with pytest.raises(KeyError) as info:
        result.get(timeout=30)
    assert "fail" in [entry.name for entry in info.traceback]
    assert result.exc_info[:2] == (KeyError, result.exception)


class TestLocks:
    def test_semaphore_counts(self):
        semaphore = Semaphore(2)
        assert semaphore.acquire() and semaphore.acquire()
        assert semaphore.locked() and not semaphore.ready()
        assert not semaphore.acquire(blocking=False)
        assert not semaphore.acquire(timeout=0.01)
        assert semaphore.release() == 1
        assert semaphore.wait() == 1
        with pytest.raises(ValueError, match="must be >= 0"):
            Semaphore(-1)

    def test_waiters_are_served_in_their_order(self):
        semaphore = Semaphore(0)
        order = []
        for number in range(5):
            gevent.spawn(lambda n: (semaphore.acquire(), order.append(n)), number)
        gevent.sleep(0)
        assert semaphore.linkcount() == 5
        for _ in range(5):
            semaphore.release()
        gevent.sleep(0.01)
        assert order == [0, 1, 2, 3, 4]

    def test_bounded_semaphore_finds_a_release_too_many(self):
        semaphore = BoundedSemaphore()
        with pytest.raises(ValueError, match="released too many times"):
            semaphore.release()

    def test_rlock_belongs_to_its_greenlet(self):
        lock = RLock()
        with lock, lock:
            assert lock.locked()
            other = gevent.spawn(lock.acquire, blocking=False)
            assert other.get(timeout=30) is False
            stranger = gevent.spawn(util.wrap_errors(RuntimeError, lock.release))
            assert isinstance(stranger.get(timeout=30), RuntimeError)
        assert not lock.locked()

    def test_dummy_semaphore_never_blocks(self):
        semaphore = DummySemaphore()
        with semaphore, semaphore:
            assert semaphore.acquire() and semaphore.ready() and not semaphore.locked()

    def test_a_dummy_is_an_object_like_any_other(self):
        class Named(DummySemaphore):
            def __init__(self, name, color):
                DummySemaphore.__init__(self, 5)
                self.name, self.color = name, color

            def release(self):
                raise ValueError(self.name)

        dummy = DummySemaphore(3)
        dummy.owner = dummy
        assert dummy.__dict__ == {"owner": dummy} and weakref.ref(dummy)() is dummy
        assert (dummy.wait(), dummy.wait(timeout=1), dummy.release()) == (1, 1, None)
        assert dummy.acquire(False) is True and dummy.acquire(timeout=0, blocking=True) is True
        assert (dummy.rawlink(print), dummy.unlink(print)) == (None, None)
        assert str(dummy) == "<DummySemaphore>" and str(Named("a", "b")) == "<Named>"
        for function, args in ((DummySemaphore, (1, 2)), (dummy.rawlink, ()), (dummy.wait, (1, 2))):
            with pytest.raises(TypeError):
                function(*args)
        del function
        with pytest.raises(ValueError, match="mine"):
            Named("mine", "red").release()
        seen = weakref.ref(dummy)
        del dummy
        gc.collect()
        assert seen() is None

    def test_timeout_of_somebody_else_passes_through(self):
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
            Semaphore(0).acquire(timeout=5)
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
            Event().wait(timeout=5)


class TestEvents:
    def test_set_and_cleared_before_the_waiter_runs(self):
        event = Event()
        waiter = gevent.spawn(event.wait)
        gevent.sleep(0)
        event.set()
        event.clear()
        assert waiter.get(timeout=30) is True

    def test_rawlink_is_called_once_in_the_hub(self):
        event, seen = Event(), []
        event.rawlink(lambda one: seen.append((one, gevent.getcurrent())))
        event.set()
        gevent.sleep(0)
        event.clear()
        event.set()
        gevent.sleep(0)
        assert seen == [(event, gevent.get_hub())]

    def test_unlinked_by_an_earlier_link(self):
        event, seen = Event(), []
        event.rawlink(lambda one: one.unlink(seen.append))
        event.rawlink(seen.append)
        event.set()
        gevent.sleep(0)
        assert seen == []

    def test_async_result_is_like_a_future(self):
        result = AsyncResult()
        assert not result.done() and not result.cancel() and not result.cancelled()
        result.set_result(1)
        assert result.done() and result.result() == 1
        assert gevent.wait([result]) == [result]


class TestQueues:
    def test_orders(self):
        items = [3, 1, 2]
        assert list(iter_all(queue.Queue(items=items))) == [3, 1, 2]
        assert list(iter_all(queue.LifoQueue(items=items))) == [2, 1, 3]
        assert list(iter_all(queue.PriorityQueue(items=items))) == [1, 2, 3]

    def test_full_and_empty(self):
        q = queue.Queue(1)
        q.put(1, timeout=-1)
        assert q.full() and len(q) == 1 and q
        for limit in ({"block": False}, {"timeout": 0.01}, {"timeout": -1}):
            with pytest.raises(queue.Full):
                q.put(2, **limit)
        assert q.get() == 1
        for get in (q.get_nowait, lambda: q.get(timeout=0.01), q.peek_nowait):
            with pytest.raises(queue.Empty):
                get()
        with pytest.raises(ValueError):
            q.get(timeout=-1)

    def test_putters_and_getters_are_served_in_their_order(self):
        q = queue.Queue(1)
        q.put(0)
        for number in range(1, 5):
            gevent.spawn(q.put, number)
        gevent.sleep(0)
        assert [q.get(timeout=30) for _ in range(5)] == [0, 1, 2, 3, 4]

    def test_tasks(self):
        q = queue.JoinableQueue(items=[1, 2])
        assert q.unfinished_tasks == 2
        assert q.join(timeout=0.01) is False
        q.task_done()
        q.task_done()
        assert q.join() is True
        with pytest.raises(ValueError, match="too many times"):
            q.task_done()

    def test_copy(self):
        q = queue.PriorityQueue(5, items=[2, 1])
        other = q.copy()
        assert other.get() == 1 and q.qsize() == 2 and other.maxsize == 5


def iter_all(q):
    while not q.empty():
        yield q.get()


class TestPools:
    def test_size_is_a_limit(self):
        limited = pool.Pool(2)
        running, most = [], []

        def work():
            running.append(1)
            most.append(len(running))
            gevent.sleep(0.001)
            running.pop()

        for _ in range(6):
            limited.spawn(work)
        assert limited.join(timeout=30)
        assert max(most) == 2
        assert limited.free_count() == 2 and not limited.full()

    def test_full_pool_refuses_if_it_may_not_wait(self):
        limited = pool.Pool(1)
        limited.spawn(gevent.sleep, 5)
        greenlet = gevent.Greenlet(lambda: None)
        with pytest.raises(pool.PoolFull):
            limited.add(greenlet, blocking=False)
        with pytest.raises(pool.PoolFull):
            limited.start(greenlet, timeout=0.01)
        limited.kill()

    def test_maps(self):
        group = pool.Group()
        assert group.map(abs, [-1, -2]) == [1, 2]
        assert list(group.imap(max, [1, 5], [3, 2])) == [3, 5]
        assert sorted(group.imap_unordered(abs, [-1, -2], maxsize=1)) == [1, 2]
        assert group.apply(max, (1, 2)) == 2
        seen = []
        group.apply_async(max, (1, 2), callback=seen.append).join(30)
        gevent.sleep(0)
        assert seen == [2]

    def test_map_raises_what_the_function_raised(self):
        with pytest.raises(TypeError):
            pool.Group().map(abs, [None])
        with pytest.raises(TypeError):
            list(pool.Pool(1).imap(abs, [None]))


class TestListings:
    def test_run_info_names_threads_greenlets_and_stacks(self):
        def a_function_to_find():
            gevent.sleep(5)

        greenlet = gevent.spawn(a_function_to_find)
        gevent.sleep(0)
        out = io.StringIO()
        util.print_run_info(file=out)
        text = out.getvalue()
        greenlet.kill()
        assert "* Threads" in text and "* Greenlets" in text and "(CURRENT)" in text
        assert "a_function_to_find" in text
        assert "Spawned at:" in text

    def test_tree_of_spawning(self):
        def parent():
            child = gevent.spawn(gevent.sleep, 5)
            gevent.sleep(0)
            return child

        spawner = gevent.spawn(parent)
        child = spawner.get(timeout=30)
        tree = util.GreenletTree.current_tree()
        assert tree.is_current_tree and tree.root
        [spawned] = [t for t in tree.child_trees if t.greenlet is spawner]
        assert [t.greenlet for t in spawned.child_trees] == [child]
        child.kill()

    def test_assert_switches(self):
        with util.assert_switches():
            gevent.sleep(0)
        with util.assert_switches(max_blocking_time=5, hub_only=True):
            gevent.sleep(0)
        with pytest.raises(AssertionError, match="To any greenlet"), util.assert_switches():
            pass
        with pytest.raises(KeyError), util.assert_switches():
            raise KeyError


def test_a_free_rlock_does_not_look_at_its_timeout():
    lock = RLock()
    assert lock.acquire(True, "no number")
    assert lock.acquire(True, "no number")
    in_other = gevent.spawn(lock.acquire, True, "no number")
    with pytest.raises(TypeError):
        in_other.get(timeout=30)
    lock.release()
    lock.release()


def test_seconds_of_a_timeout_that_are_no_number_are_an_error_at_its_start():
    timeout = gevent.Timeout(1)
    timeout.seconds = "abc"
    with pytest.raises(TypeError):
        timeout.start()
    assert not timeout.pending
    timeout.seconds = 1
    timeout.start()
    assert timeout.pending
    timeout.close()
