"""What holds itself through an object of gevent's is found by the collector."""

import gc
import weakref

import pytest

import gevent
from gevent import socket


class Held:
    """Something that can be told to be gone."""


def own_stack(held):
    g = gevent.Greenlet(lambda: None)
    g.held = held
    g.spawning_stack = [g]


def own_start(held):
    g = gevent.spawn_later(1000, lambda: None)
    g.held = held
    g.start_event = g._start_event
    g.kill()


def own_timer(held):
    t = gevent.Timeout(1000)
    t.held = held
    t.start()
    t.own = t.timer
    t.cancel()


def own_limit(held):
    class Seconds(float):
        pass

    s = socket.socket()
    seconds = Seconds(5)
    s.settimeout(seconds)
    seconds.held = held
    seconds.socket = s


@pytest.mark.parametrize("make", [own_stack, own_start, own_timer, own_limit])
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_it_is_collected(make):
    gone = weakref.ref(held := Held())
    make(held)
    del held
    gevent.sleep(0)
    gc.collect()
    gevent.sleep(0)
    gc.collect()
    assert gone() is None


def spawned_below(cls, depth):
    return spawned_below(cls, depth - 1) if depth else cls.spawn(lambda: None)


def depth_of(g):
    n, frame = 0, g.spawning_stack
    while frame is not None:
        n, frame = n + 1, frame.f_back
    return n


def of_limit(limit):
    return type("Limited", (gevent.Greenlet,), {"spawning_stack_limit": limit})


@pytest.mark.parametrize(
    ("limit", "kept"), [(0, 0), (1, 1), (10, 10), (11, 11), (50, 50), (100, 100), (True, 1)]
)
def test_a_class_says_how_many_frames_are_kept(limit, kept):
    assert depth_of(spawned_below(of_limit(limit), 120)) == kept


def test_all_frames_are_kept_for_a_negative_limit():
    shallow, deep = (depth_of(spawned_below(of_limit(-1), n)) for n in (1, 200))
    assert deep - shallow == 199


@pytest.mark.parametrize(("limit", "error"), [(2**70, OverflowError), ("x", TypeError)])
def test_a_limit_that_is_no_number_is_refused(limit, error):
    with pytest.raises(error):
        of_limit(limit)(lambda: None)
