"""Switching: what goes over with a switch, who gets a result, and in which order things happen."""

import gc
import sys

import greenlet
import pytest
from greenlet import GreenletExit, getcurrent


def park():
    return getcurrent().parent.switch()


def echo(*first):
    """Sends back whatever comes, until told to stop."""
    got = first
    while True:
        got = getcurrent().parent.switch(got)


def make_echo():
    g = greenlet.greenlet(echo)
    assert g.switch() == ()
    return g


@pytest.mark.parametrize(
    ("args", "kwargs", "value"),
    [
        ((), {}, ()),
        ((1,), {}, 1),
        (((),), {}, ()),
        (((1,),), {}, (1,)),
        ((1, 2), {}, (1, 2)),
        ((), {"a": 1}, {"a": 1}),
        ((1,), {"a": 1}, ((1,), {"a": 1})),
        ((1, 2), {"a": 1, "b": 2}, ((1, 2), {"a": 1, "b": 2})),
        ((None,), {}, None),
    ],
)
def test_the_value_of_a_switch(args, kwargs, value):
    g = make_echo()
    assert g.switch(*args, **kwargs) == value
    assert getcurrent().switch(*args, **kwargs) == value, "to itself"
    g.throw()
    assert g.dead
    assert g.switch(*args, **kwargs) == value, "past the dead, to its parent"


def test_the_first_switch_calls_run_with_its_arguments():
    def run(a, b=2, *rest, c=3, **more):
        return a, b, rest, c, more

    new = greenlet.greenlet
    assert new(run).switch(1) == (1, 2, (), 3, {})
    assert new(run).switch(1, 5, 6, c=7, d=8) == (1, 5, (6,), 7, {"d": 8})
    assert new(lambda: "none").switch() == "none"
    with pytest.raises(TypeError):
        new(run).switch()


def test_an_unstarted_parent_gets_the_result_as_its_argument():
    seen = []
    parent = greenlet.greenlet(lambda *args, **kwargs: seen.append((args, kwargs)) or "parent's")
    child = greenlet.greenlet(lambda: "child's", parent)
    assert child.switch() == "parent's"
    assert seen == [(("child's",), {})]


def test_an_exception_starts_an_unstarted_parent_with_it():
    parent = greenlet.greenlet(lambda *args: "not reached")
    child = greenlet.greenlet(lambda: 1 / 0, parent)
    with pytest.raises(ZeroDivisionError):
        child.switch()
    assert parent.dead
    assert child.dead


def test_switch_to_the_dead_goes_up_to_the_first_that_lives():
    main = getcurrent()
    living = greenlet.greenlet(lambda: main.switch(main.switch("parked")))
    assert living.switch() == "parked"
    a = greenlet.greenlet(lambda: None, living)
    b = greenlet.greenlet(lambda: None, a)
    a.parent = main
    a.switch()
    a.parent = living
    b.parent = a
    assert a.dead
    assert not b.dead
    assert b.switch() is None, "b ends; a is dead; living gets None and sends it on"
    assert living.switch() == ()
    assert living.dead


def test_a_ring_longer_than_the_chain_of_resumers():
    main = getcurrent()
    count = 300
    ring = []
    log = []

    def member(i):
        following = ring[i + 1] if i + 1 < count else main
        for turn in range(3):
            log.append((turn, i))
            following.switch(*(() if following is main or turn else (i + 1,)))

    ring.extend(greenlet.greenlet(member) for _ in range(count))
    ring[0].switch(0)
    ring[0].switch()
    ring[0].switch()
    assert log == [(turn, i) for turn in range(3) for i in range(count)]
    for g in reversed(ring):
        g.parent = main
        g.throw()
        assert g.dead


def test_nested_greenlets_finish_in_any_order():
    main = getcurrent()

    def nest(n):
        if n == 0:
            main.switch("bottom")
            return 0
        return greenlet.greenlet(nest).switch(n - 1) + 1

    stacks = [greenlet.greenlet(nest) for _ in range(10)]
    leaves = []

    def park(n):
        if n == 0:
            leaves.append(getcurrent())
            return main.switch("bottom")
        return greenlet.greenlet(park).switch(n - 1) + 1

    stacks = [greenlet.greenlet(park) for _ in range(10)]
    for g in stacks:
        assert g.switch(20) == "bottom"
    for i in (3, 9, 0, 5, 1, 2, 4, 6, 7, 8):
        assert leaves[i].switch(i) == 20 + i
        assert stacks[i].dead


def test_throw_forms():
    def run():
        try:
            getcurrent().parent.switch()
        except ValueError as error:
            return type(error), error.args, error.__traceback__ is not None, error.__context__

    def thrown(*args):
        g = greenlet.greenlet(run)
        g.switch()
        return g.throw(*args)

    assert thrown(ValueError) == (ValueError, (), True, None)
    assert thrown(ValueError, 1) == (ValueError, (1,), True, None)
    assert thrown(ValueError, (1, 2)) == (ValueError, (1, 2), True, None)
    assert thrown(ValueError(3)) == (ValueError, (3,), True, None)
    assert thrown(ValueError(3), None, None) == (ValueError, (3,), True, None)
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        # What is being handled here is not the context of what is raised there.
        assert thrown(ValueError, 4) == (ValueError, (4,), True, None)
    g = greenlet.greenlet(run)
    g.switch()
    for wrong in ((1,), (ValueError(1), 2), (ValueError, 1, 2)):
        with pytest.raises(TypeError):
            g.throw(*wrong)
        assert not g.dead
    g.throw(ValueError)


def test_a_thrown_traceback_shows_where_it_was_raised():
    def source():
        raise KeyError("from here")

    try:
        source()
    except KeyError:
        info = sys.exc_info()
    g = greenlet.greenlet(park)
    g.switch()
    with pytest.raises(KeyError) as caught:
        g.throw(*info)
    names = [entry.name for entry in caught.traceback]
    assert names[-1] == "source"
    assert "park" in names


def test_greenlet_exit_is_a_value():
    g = greenlet.greenlet(park)
    g.switch()
    value = g.throw(GreenletExit, "why")
    assert isinstance(value, GreenletExit)
    assert value.args == ("why",)
    again = g.throw(GreenletExit("dead already"))
    assert again.args == ("dead already",)
    with pytest.raises(ValueError):
        g.throw(ValueError)


def test_losing_the_last_reference_kills():
    log = []

    def run():
        try:
            getcurrent().parent.switch()
        except GreenletExit:
            log.append("exit")
            raise
        finally:
            log.append("finally")

    g = greenlet.greenlet(run)
    g.switch()
    try:
        raise KeyError("handled meanwhile")
    except KeyError:
        del g
        assert sys.exc_info()[0] is KeyError
    assert log == ["exit", "finally"]


def test_one_that_catches_its_end_is_complained_of(capsys):
    def stubborn():
        while True:
            try:
                getcurrent().parent.switch()
            except GreenletExit:
                pass

    g = greenlet.greenlet(stubborn)
    g.switch()
    del g
    gc.collect()
    assert "GreenletExit did not kill" in capsys.readouterr().err


def test_one_that_is_taken_at_its_end_lives_on():
    kept = []

    def run():
        try:
            getcurrent().parent.switch(1)
        except GreenletExit:
            kept.append(getcurrent())
        return getcurrent().parent.switch(2)

    class Sub(greenlet.greenlet):
        pass

    for kind in (greenlet.greenlet, Sub):
        before = sys.getrefcount(kind)
        g = kind(run)
        g.switch()
        del g
        (g,) = kept
        kept.clear()
        assert not g.dead
        assert g.switch("end") == "end"
        assert g.dead
        del g
        assert sys.getrefcount(kind) == before


def test_run_may_be_anything_that_can_be_called():
    class Sub(greenlet.greenlet):
        def run(self, x):
            return self, x

    g = Sub()
    assert g.switch(3) == (g, 3)

    class Lazy(greenlet.greenlet):
        def __getattribute__(self, name):
            if name == "run":
                return lambda: "looked up"
            return super().__getattribute__(name)

    assert Lazy().switch() == "looked up"
    with pytest.raises(AttributeError, match="run"):
        greenlet.greenlet().switch()
    g = greenlet.greenlet()
    g.run = len
    assert g.switch("abc") == 3
    with pytest.raises(AttributeError):
        g.run = len


def test_subclasses_may_have_any_constructor():
    class Sub(greenlet.greenlet):
        __slots__ = ("a", "b")

        def __init__(self, a, *, b):
            self.a, self.b = a, b

        def run(self):
            return self.a + self.b

    assert Sub(1, b=2).switch() == 3

    class WithNew(greenlet.greenlet):
        def __new__(cls, word):
            self = super().__new__(cls)
            self.word = word
            return self

        def __init__(self, word):
            super().__init__(lambda: word)

    g = WithNew("w")
    assert g.word == g.switch() == "w"


def test_tracer_sees_each_hop():
    main = getcurrent()
    log = []
    g = greenlet.greenlet(lambda: main.switch(1))
    h = greenlet.greenlet(g.switch, main)
    old = greenlet.settrace(lambda event, pair: log.append((event, *pair)))
    try:
        h.switch()
        g.throw(GreenletExit)
        h.throw(ValueError, "x") if not h.dead else None
    except ValueError:
        pass
    finally:
        greenlet.settrace(old)
    assert log == [
        ("switch", main, h),
        ("switch", h, g),
        ("switch", g, main),
        ("throw", main, g),
        ("switch", g, main),
        ("throw", main, h),
        ("throw", h, main),
    ]


def test_a_tracer_that_raises_is_removed():
    def tracer(event, pair):
        raise OSError(event)

    g = greenlet.greenlet(lambda: "never")
    greenlet.settrace(tracer)
    with pytest.raises(OSError, match="switch"):
        g.switch()
    assert greenlet.gettrace() is None
    assert g.dead
