"""`gevent.local`: whose attributes are whose, what is called when, and what goes with what."""

import copy
import gc
import threading
import weakref

import gevent
import greenlet
import pytest
from gevent.local import all_local_dicts_for_greenlet, local
from scripts import lines_of


class Counting(local):
    made = 0
    shared = "class"

    def __init__(self, *args, **kwargs):
        type(self).made += 1
        self.args = args
        self.kwargs = kwargs


class Slotted(local):
    __slots__ = ("common",)


class WithProperties(local):
    non_data = None

    @property
    def half(self):
        return self.whole / 2

    @half.setter
    def half(self, value):
        self.whole = value * 2

    @half.deleter
    def half(self):
        del self.whole

    def method(self):
        return self.whole


class NonData:
    def __get__(self, obj, cls):
        return "from the class"


class OnlyDeletes:
    deleted = 0

    def __delete__(self, obj):
        type(self).deleted += 1


WithProperties.non_data = NonData()
WithProperties.only_deletes = OnlyDeletes()


def in_greenlet(f, *args):
    return gevent.spawn(f, *args).get()


def test_each_greenlet_has_its_own_values():
    obj = local()
    obj.x = 1

    def other():
        assert not hasattr(obj, "x")
        obj.x = 2
        gevent.sleep(0)
        return obj.x, obj.__dict__

    assert in_greenlet(other) == (2, {"x": 2})
    assert obj.x == 1 and obj.__dict__ == {"x": 1}


def test_threads_and_raw_greenlets_too():
    obj = local()
    obj.x = 1
    seen = []

    def other():
        seen.append(hasattr(obj, "x"))
        obj.x = len(seen) + 1

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    greenlet.greenlet(other).switch()
    assert seen == [False, False] and obj.x == 1


def test_init_runs_once_in_each_greenlet_with_the_same_arguments():
    Counting.made = 0
    obj = Counting(1, 2, a=3)
    assert Counting.made == 1

    def other():
        # Asking for the class is no use of the object.
        assert isinstance(obj, Counting) and obj.__class__ is Counting
        before = Counting.made
        assert (obj.args, obj.kwargs) == ((1, 2), {"a": 3})
        assert obj.shared == "class"
        return Counting.made - before

    assert [in_greenlet(other), in_greenlet(other)] == [1, 1]
    assert Counting.made == 3


def test_init_that_fails_is_told_and_not_run_again():
    class Failing(local):
        fails = False

        def __init__(self):
            if type(self).fails:
                raise ValueError("expected")

    obj = Failing()
    Failing.fails = True

    def other():
        with pytest.raises(ValueError, match="expected"):
            obj.x = 1
        obj.x = 2
        return obj.x

    assert in_greenlet(other) == 2


def test_arguments_need_an_init():
    with pytest.raises(TypeError) as info:
        local(1, a=2)
    assert info.value.args == ("Initialization arguments are not supported", (1,), {"a": 2})


def test_slots_are_shared():
    obj = Slotted()
    obj.common = 1
    obj.own = 2

    def other():
        assert not hasattr(obj, "own")
        return obj.common

    assert in_greenlet(other) == 1
    del obj.common
    with pytest.raises(AttributeError):
        _ = obj.common


def test_properties_and_methods_see_the_greenlets_values():
    obj = WithProperties()
    obj.half = 4
    assert (obj.whole, obj.half, obj.method()) == (8, 4, 8)

    def other():
        with pytest.raises(AttributeError):
            _ = obj.half
        obj.half = 1
        return obj.whole

    assert in_greenlet(other) == 2 and obj.whole == 8
    del obj.half
    assert obj.__dict__ == {}


def test_the_instance_wins_over_what_is_no_data_descriptor():
    obj = WithProperties()
    assert obj.non_data == "from the class"
    obj.non_data = obj.method = 5
    assert (obj.non_data, obj.method) == (5, 5)
    del obj.non_data
    assert obj.non_data == "from the class"


def test_a_descriptor_that_only_deletes():
    obj = WithProperties()
    obj.only_deletes = 7
    assert obj.__dict__ == {"only_deletes": 7}
    del obj.only_deletes
    assert OnlyDeletes.deleted == 1 and obj.__dict__ == {"only_deletes": 7}


@pytest.mark.ours
def test_a_class_that_is_changed_later():
    # Upstream remembers the class's names when the object is made.
    class Plain(local):
        pass

    obj = Plain()
    obj.x = 1
    Plain.x = property(lambda self: "property")
    Plain.later = 3
    assert (obj.x, obj.later) == ("property", 3)


def test_the_dictionary_is_read_only():
    obj = local()
    text = "^<class 'gevent.*local'> object attribute '__dict__' is read-only$"
    with pytest.raises(AttributeError, match=text):
        obj.__dict__ = {}
    with pytest.raises(AttributeError, match="^'local' object attribute '__dict__' is read-only$"):
        del obj.__dict__
    obj.__dict__["x"] = 1
    assert obj.x == 1


def test_what_is_missing():
    obj = Counting()
    with pytest.raises(AttributeError, match="^'Counting' object has no attribute 'nothing'$"):
        _ = obj.nothing
    with pytest.raises(AttributeError, match="^nothing$"):
        del obj.nothing
    with pytest.raises(TypeError, match="must be string"):
        getattr(obj, 1)


def test_getattr_of_a_subclass():
    class Falls(local):
        def __getattr__(self, name):
            if name.startswith("no"):
                raise AttributeError(name)
            return name.upper()

    obj = Falls()
    obj.x = 1
    assert (obj.x, obj.y) == (1, "Y")
    assert in_greenlet(lambda: obj.x) == "X"
    assert not hasattr(obj, "nothing")


def test_overridden_attribute_access():
    log = []

    class Logs(local):
        def __getattribute__(self, name):
            log.append(name)
            return super().__getattribute__(name)

        def __setattr__(self, name, value):
            log.append(name + "=")
            super().__setattr__(name, value)

        def __delattr__(self, name):
            log.append("del " + name)
            super().__delattr__(name)

    obj = Logs()
    del log[:]
    obj.x = 1
    assert obj.x == 1
    del obj.x
    assert log == ["x=", "x", "del x"]


def test_copies_have_this_greenlets_values():
    obj = Counting(1)
    obj.x = [1]
    duplicate = copy.copy(obj)
    assert type(duplicate) is Counting and duplicate.x is obj.x
    duplicate.x = 2
    assert obj.x == [1] and duplicate.args == (1,)

    def other():
        return duplicate.args, hasattr(duplicate, "x")

    assert in_greenlet(other) == ((1,), False)


class Value:
    pass


def test_values_go_with_the_greenlet():
    obj = local()

    def other():
        obj.value = Value()
        return weakref.ref(obj.value)

    g = gevent.spawn(other)
    value = g.get()
    gevent.sleep(0)
    assert value() is None, "though the greenlet object lives"

    def raw():
        obj.value = Value()
        seen.append(weakref.ref(obj.value))

    seen = []
    g = greenlet.greenlet(raw)
    g.switch()
    assert seen[0]() is not None
    del g
    gc.collect()
    assert seen[0]() is None


def test_values_go_with_the_object():
    obj = local()
    obj.value = Value()
    values = [weakref.ref(obj.value)]
    go = gevent.event.Event()

    def other():
        holder[0].value = Value()
        values.append(weakref.ref(holder[0].value))
        go.wait()
        return gevent.getcurrent().__dict__, all_local_dicts_for_greenlet(gevent.getcurrent())

    holder = [obj]
    g = gevent.spawn(other)
    gevent.sleep(0)
    assert len(values) == 2 and all(v() is not None for v in values)
    holder.clear()
    del obj
    gc.collect()
    assert [v() for v in values] == [None, None]
    go.set()
    kept, listed = g.get()
    assert listed == []
    assert not [key for key in kept if key.startswith("_gevent_local")]


def test_a_cycle_through_the_values_is_collected():
    obj = local()
    obj.itself = obj
    obj.value = Value()
    value = weakref.ref(obj.value)
    del obj
    gc.collect()
    assert value() is None


def test_many_short_greenlets_leave_nothing_behind():
    obj = local()

    def use(n):
        assert not hasattr(obj, "n"), "values of a greenlet that had this address"
        obj.n = n

    for n in range(300):
        gevent.spawn(use, n).join()
        greenlet.greenlet(use).switch(n)
    gevent.sleep(0)
    gc.collect()
    alive = [d for d in gc.get_objects() if type(d) is dict and list(d) == ["n"]]
    assert len(alive) < 5


def test_finalizers_may_use_it():
    obj = local()
    seen = []

    class Uses:
        def __del__(self):
            obj.count = getattr(obj, "count", 0) + 1
            seen.append(obj.count)

    obj.value = Uses()
    del obj.value

    def other():
        obj.value = Uses()

    in_greenlet(other)
    gevent.sleep(0)
    gc.collect()
    assert seen == [1, 1]


def test_listing():
    obj = Counting()
    obj.x = 1
    listed = dict(all_local_dicts_for_greenlet(gevent.getcurrent()))
    assert listed[(Counting, id(obj))] == {"args": (), "kwargs": {}, "x": 1}


def test_greenlets_end_while_the_local_is_freed():
    source = """
        import gevent
        from gevent.event import Event
        from gevent.local import local

        class Wakes:
            def __del__(self):
                for event in events:
                    event.set()
                gevent.sleep(0.001)

        def work(event):
            held[0].x = Wakes()
            event.wait()

        for _ in range(20):
            events = [Event() for _ in range(6)]
            held = [local()]
            greenlets = [gevent.spawn(work, event) for event in events]
            gevent.sleep(0)
            held.clear()
            gevent.joinall(greenlets)
        print("done")
    """
    assert lines_of(source) == ["done"]


def test_raw_greenlets_are_freed_while_the_local_is():
    source = """
        from gevent.local import local
        from greenlet import getcurrent, greenlet

        main = getcurrent()

        class Frees:
            def __del__(self):
                greenlets.clear()

        def work():
            held[0].x = Frees()
            main.switch()

        for _ in range(20):
            held = [local()]
            greenlets = [greenlet(work) for _ in range(6)]
            for number in range(6):
                greenlets[number].switch()
            held.clear()
        print("done")
    """
    assert lines_of(source) == ["done"]
