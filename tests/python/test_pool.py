"""`gevent.pool`: members come and go, subclasses may step in, `imap` brings all results."""

import gc
import weakref

import gevent
import greenlet
import pytest
from gevent.lock import BoundedSemaphore, Semaphore
from gevent.pool import Group, Pool, PoolFull
from gevent.threadpool import ThreadPool
from scripts import lines_of


def double(n):
    gevent.sleep(0.001 * (n % 3))
    return 2 * n


def quick(n):
    return 2 * n


def fails_at_three(n):
    if n == 3:
        raise ValueError("expected")
    return n


@pytest.fixture(params=["group", "pool", "threads"])
def workers(request):
    if request.param == "threads":
        pool = ThreadPool(3)
        yield pool
        pool.kill()
    else:
        yield Group() if request.param == "group" else Pool(4)


@pytest.mark.parametrize("func", [double, quick])
@pytest.mark.parametrize("maxsize", [None, 1, 5])
def test_imaps(workers, func, maxsize):
    wanted = [2 * n for n in range(30)]
    assert list(workers.imap(func, range(30), maxsize=maxsize)) == wanted
    assert sorted(workers.imap_unordered(func, range(30), maxsize=maxsize)) == wanted
    assert workers.map(func, range(30)) == wanted
    assert list(workers.imap(max, [1, 5], [3, 2])) == [3, 5]
    assert list(workers.imap(func, [])) == list(workers.imap_unordered(func, [])) == []


def test_imap_raises_where_the_task_failed(workers, quiet):
    results = workers.imap(fails_at_three, range(6))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="expected"):
        next(results)
    assert list(results) == [4, 5]
    got, errors = [], 0
    results = workers.imap_unordered(fails_at_three, range(6))
    while True:
        try:
            got.append(next(results))
        except StopIteration:
            break
        except ValueError:
            errors += 1
    assert sorted(got) == [0, 1, 2, 4, 5] and errors == 1


def test_imap_of_an_iterable_that_fails(workers, quiet):
    def items():
        yield 1
        yield 2
        raise ValueError("expected")

    got = []
    with pytest.raises(ValueError, match="expected"):
        got.extend(workers.imap(double, items()))


def test_imap_goes_when_its_tasks_have_ended():
    pool = Pool(2)
    results = pool.imap_unordered(quick, range(5))
    ref = weakref.ref(results)
    assert next(results) == 0
    del results
    pool.join()
    gevent.sleep(0.001)
    gc.collect()
    assert ref() is None


def test_killed_tasks_have_a_value():
    def waits():
        gevent.sleep(100)

    pool = Pool(3)
    results = pool.imap_unordered(lambda n: waits(), range(2))
    gevent.sleep(0)
    gevent.sleep(0)
    pool.kill()
    assert [type(r) for r in results] == [gevent.GreenletExit, gevent.GreenletExit]


def test_membership():
    pool = Pool(2)
    go = gevent.event.Event()
    one, two = pool.spawn(go.wait), pool.spawn(go.wait)
    assert set(pool) == {one, two} and one in pool and len(pool) == 2
    assert pool.full() and pool.free_count() == 0
    three = gevent.Greenlet(go.wait)
    with pytest.raises(PoolFull):
        pool.add(three, blocking=False)
    with pytest.raises(PoolFull):
        pool.start(three, timeout=0.001)
    with pytest.raises(TypeError):
        pool.start()
    with pytest.raises(TypeError):
        pool.add()
    assert not three.started and three not in pool
    pool.discard(one)
    assert one not in pool and pool.free_count() == 1
    pool.start(three, False)
    go.set()
    pool.join()
    assert len(pool) == 0 and not pool and pool.wait_available() == 2
    gevent.joinall([one, two, three])
    assert pool.wait_available() == 2, "what was discarded does not give its place back twice"


def test_raw_greenlets_and_what_has_no_link():
    group = Group()
    raw = greenlet.greenlet(lambda: None)
    group.add(raw)
    assert raw in group and not group.join(timeout=0.001)
    group.discard(raw)
    assert group.join(timeout=0.001)


def test_subclasses_may_step_in():
    log = []

    class Logs(Pool):
        def add(self, greenlet, *args, **kwargs):
            log.append("add")
            super().add(greenlet, *args, **kwargs)

        def start(self, greenlet, *args, **kwargs):
            log.append("start")
            super().start(greenlet, *args, **kwargs)

        def _discard(self, greenlet):
            log.append("discard")
            super()._discard(greenlet)

    class Own(gevent.Greenlet):
        def start(self):
            log.append("own")
            super().start()

    pool = Logs(1, greenlet_class=Own)
    g = pool.spawn(quick, 4)
    assert g.get() == 8
    pool.join()
    assert type(g) is Own and log == ["start", "add", "own", "discard"]
    assert pool.free_count() == 1
    pool.greenlet_class = gevent.Greenlet
    assert type(pool.spawn(quick, 1)) is gevent.Greenlet


def test_a_group_of_greenlets_that_are_there_already():
    gs = [gevent.spawn(quick, n) for n in range(3)]
    group = Group(gs)
    assert len(group) == 3
    gevent.joinall(gs)
    gevent.sleep(0)
    assert len(group) == 0


def test_join_raises_what_a_member_raised(quiet):
    group = Group()
    group.spawn(fails_at_three, 3)
    with pytest.raises(ValueError, match="expected"):
        group.join(raise_error=True)


@pytest.mark.ours
def test_a_pool_without_its_constructor():
    with pytest.raises(RuntimeError):
        Pool.__new__(Pool).spawn(quick, 1)


def test_fields_are_deleted_while_a_member_goes():
    source = """
        from gevent.pool import Group

        class Deletes:
            def __init__(self, group, name):
                self.group, self.name = group, name

            def __hash__(self):
                return 1

            def __eq__(self, other):
                if hasattr(self, "name"):
                    delattr(self.group, self.__dict__.pop("name"))
                return False

        for name in ("greenlets", "dying"):
            group = Group()
            group.greenlets.add(Deletes(group, name))
            try:
                group._discard(Deletes(Group(), "dying"))
            except AttributeError as error:
                print(name in str(error))
    """
    assert lines_of(source) == ["True"] * 2


def test_sizes_that_come_of_a_division():
    crew = Pool(5 / 2)
    assert crew.map(abs, range(4)) == [0, 1, 2, 3]
    assert (crew.full(), Semaphore(2.0).counter, BoundedSemaphore(2.9).counter) == (False, 2, 2)
    with pytest.raises(TypeError):
        Semaphore("2")
    with pytest.raises(ValueError):
        Semaphore(-1.0)
