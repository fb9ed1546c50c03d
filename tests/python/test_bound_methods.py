"""The methods that `with` binds anew each time: each is its own object's, whichever came before."""

import gc
import inspect
import pickle
import sys
import types
import weakref

import pytest

from gevent.lock import BoundedSemaphore, DummySemaphore, RLock, Semaphore
from gevent.thread import LockType
from gevent.timeout import Timeout

LOCKS = [Semaphore, BoundedSemaphore, RLock]


@pytest.mark.parametrize("kind", [*LOCKS, DummySemaphore, LockType])
def test_each_belongs_to_its_object(kind):
    first, second = kind(), kind()
    with first, second:
        pass
    enter, leave = first.__enter__, second.__exit__
    assert (enter.__self__, leave.__self__) == (first, second)
    assert (enter.__name__, leave.__name__) == ("__enter__", "__exit__")
    enter()
    first.__exit__(None, None, None)
    second.__enter__()
    leave(None, None, None)
    assert enter != second.__enter__
    assert enter == first.__enter__
    assert hash(enter) == hash(first.__enter__)


@pytest.mark.parametrize("kind", LOCKS)
def test_many_at_once_and_none_keeps_the_object(kind):
    lock = kind()
    with lock:
        pass
    before = sys.getrefcount(lock)
    many = [lock.__exit__ for _ in range(1000)]
    assert sys.getrefcount(lock) == before + 1000
    assert all(one.__self__ is lock for one in many)
    del many[::2]
    assert sys.getrefcount(lock) == before + 500
    del many
    assert sys.getrefcount(lock) == before
    gone = weakref.ref(lock)
    del lock
    assert gone() is None
    with kind():
        pass


@pytest.mark.parametrize("kind", LOCKS)
def test_the_collector_and_weak_references_see_them(kind):
    class Own(kind):
        pass

    lock = Own()
    lock.mine = lock.__enter__
    assert lock in gc.get_referents(lock.mine)
    noticed = []
    method = lock.__exit__
    there = weakref.ref(method, noticed.append)
    del method
    assert noticed == [there]
    gone = weakref.ref(lock)
    del lock
    gc.collect()
    assert gone() is None


@pytest.mark.ours  # Upstream crashes.
@pytest.mark.parametrize("kind", LOCKS)
def test_what_does_not_fit_is_refused(kind):
    lock = kind()
    with lock:
        pass
    for wrong in (
        lambda: lock.__enter__(1),
        lambda: lock.__enter__(one=1),
        lambda: kind.__enter__(),
        lambda: kind.__enter__(3),
        lambda: kind.__exit__(object(), None, None, None),
    ):
        with pytest.raises(TypeError):
            wrong()
    with lock:
        pass


@pytest.mark.ours
@pytest.mark.parametrize("kind", [*LOCKS, Timeout])
def test_they_look_like_any_built_in_method(kind):
    lock = kind()
    for method, function in ((lock.__enter__, kind.__enter__), (lock.__exit__, kind.__exit__)):
        assert isinstance(method, types.BuiltinMethodType)
        assert isinstance(function, types.MethodDescriptorType)
        assert inspect.isbuiltin(method)
        assert inspect.ismethoddescriptor(function)
        assert type(method).__name__ == type(len).__name__
        assert function.__get__(None, kind) is function
        assert function.__get__(lock, kind) == method
        assert pickle.loads(pickle.dumps(function)) is function
    with pytest.raises(TypeError):
        type(lock.__enter__)()


def test_errors_inside_a_with_leave_by_the_right_lock():
    outer, inner = BoundedSemaphore(1), RLock()
    for _ in range(100):
        with pytest.raises(ZeroDivisionError), outer, inner:
            assert outer.locked() and inner.locked()
            raise ZeroDivisionError
        assert not outer.locked() and not inner.locked()
    with pytest.raises(ValueError), outer:
        outer.release()
    assert outer.counter == 1
