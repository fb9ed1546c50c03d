"""The monitoring thread: what it sees and tells, and that switches cost no more because of it."""

import time

import greenlet
import pytest

import gevent
from gevent import config, events
from gevent import _tracer


@pytest.fixture
def monitor():
    """The monitoring thread of a new hub, and the events that it sends."""
    seen = []
    events.subscribers.append(seen.append)
    hub = gevent.get_hub()
    # Upstream's takes a hub that has not run yet for one that has ended.
    gevent.sleep(0)
    old_time, old_stream = config.max_blocking_time, hub.exception_stream
    config.monitor_thread = True
    config.max_blocking_time = 0.05
    hub.exception_stream = None
    thread = hub.start_periodic_monitoring_thread()
    yield thread, seen
    thread.kill()
    hub.periodic_monitoring_thread = None
    config.monitor_thread = False
    config.max_blocking_time, hub.exception_stream = old_time, old_stream
    events.subscribers.remove(seen.append)


def blocked(seen):
    return [e for e in list(seen) if isinstance(e, events.EventLoopBlocked)]


def wait_for(condition):
    with gevent.Timeout(20):
        while not condition():
            gevent.sleep(0.01)


def block_until(condition):
    until = time.monotonic() + 20
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def test_a_greenlet_that_blocks_is_told_by_an_event(monitor):
    thread, seen = monitor

    def blocks():
        block_until(lambda: blocked(seen))

    g = gevent.spawn(blocks)
    g.get()
    event = blocked(seen)[0]
    assert event.greenlet is g and event.hub is gevent.get_hub()
    assert event.blocking_time == 0.05
    assert any("block_until" in line for line in event.info)


def test_switching_is_no_blocking(monitor):
    thread, seen = monitor
    looks = []
    thread.add_monitoring_function(looks.append, config.max_blocking_time)

    def busy():
        while len(looks) < 8:
            gevent.sleep(0)

    gevent.joinall([gevent.spawn(busy) for _ in range(3)])
    # One who was not run by a loaded machine for so long may be told rightly; not all the time.
    assert len(blocked(seen)) < 5


def test_memory_is_watched(monitor):
    psutil = pytest.importorskip("psutil")
    assert psutil
    thread, seen = monitor
    # The thread itself may look at it in between, and an event is sent but once.
    thread.add_monitoring_function(thread.monitor_memory_usage, None)
    gevent.sleep(0.1)
    thread._memory_exceeded = 0
    old = config.max_memory_usage
    try:
        config.max_memory_usage = 1
        event = thread.monitor_memory_usage(None)
        assert isinstance(event, events.MemoryUsageThresholdExceeded)
        assert event.mem_usage > event.max_allowed == 1
        config.max_memory_usage = 1 << 50
        assert isinstance(
            thread.monitor_memory_usage(None), events.MemoryUsageUnderThreshold
        )
    finally:
        config.max_memory_usage = old
    kinds = [type(e) for e in seen if not isinstance(e, events.EventLoopBlocked)]
    assert events.MemoryUsageThresholdExceeded in kinds


@pytest.mark.ours
def test_its_tracer_is_not_called(monitor):
    thread, _ = monitor
    tracer = thread._greenlet_tracer
    assert greenlet.gettrace() is tracer
    called = []
    old = _tracer.GreenletTracer._trace
    _tracer.GreenletTracer._trace = lambda self, *args: called.append(args)
    try:
        gevent.sleep(0)
        gevent.spawn(abs, 1).join()
    finally:
        _tracer.GreenletTracer._trace = old
    assert called == [] and tracer.greenlet_switch_counter > 0


def test_another_tracer_is_called_too():
    events_seen = []

    def other(event, args):
        events_seen.append(event)

    greenlet.settrace(other)
    tracer = _tracer.GreenletTracer()
    try:
        gevent.sleep(0)
        assert events_seen and tracer.greenlet_switch_counter > 0
        assert tracer.previous_trace_function is other
    finally:
        tracer.kill()
        assert greenlet.gettrace() is other
        greenlet.settrace(None)


def test_a_tracer_that_replaces_it():
    tracer = _tracer.GreenletTracer()
    events_seen = []
    assert greenlet.settrace(lambda *args: events_seen.append(args)) is tracer
    gevent.sleep(0)
    assert events_seen
    greenlet.settrace(None)
    assert greenlet.gettrace() is None


def test_direct_switches_are_counted():
    tracer = _tracer.GreenletTracer()
    try:
        main = greenlet.getcurrent()
        assert tracer.greenlet_switch_counter == 0
        assert not tracer.did_block_hub(None)
        other = greenlet.greenlet(lambda: main.switch(tracer.active_greenlet))
        assert other.switch() is other
        assert tracer.active_greenlet is main and tracer.greenlet_switch_counter == 2
        assert not tracer.did_block_hub(None)
        assert tracer.did_block_hub(None) == (True, main)
        tracer.ignore_current_greenlet_blocking()
        assert not tracer.did_block_hub(None)
        tracer.monitor_current_greenlet_blocking()
        assert tracer.did_block_hub(None) == (True, main)
    finally:
        tracer.kill()


def test_assert_switches():
    with gevent.util.assert_switches():
        gevent.sleep(0)
    with pytest.raises(AssertionError, match="To any greenlet"):
        with gevent.util.assert_switches():
            pass
    with pytest.raises(AssertionError, match="To the hub"):
        with gevent.util.assert_switches(max_blocking_time=0.001, hub_only=True):
            time.sleep(0.05)
    with pytest.raises(AssertionError, match="max allowed"):
        with gevent.util.assert_switches(max_blocking_time=0.001):
            time.sleep(0.05)
    with pytest.raises(KeyError):
        with gevent.util.assert_switches():
            raise KeyError
