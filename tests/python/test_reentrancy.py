"""Python code in the middle of a native operation: of the hub, a comparison, or the collector."""

import pytest
from scripts import lines_of

import gevent

pytestmark = pytest.mark.ours


@pytest.mark.parametrize("put", ["put_nowait(n)", "put(n)"])
def test_a_callback_that_puts_into_a_channel_goes_on_in_its_own_frame(put):
    assert lines_of(
        f"""
            import gevent, sys
            from gevent.queue import Channel
            channel = Channel()
            def getter():
                while True:
                    print("got", channel.get())
            def callback(n):
                channel.{put}
                print(sys._getframe().f_code.co_name)
            gevent.spawn(getter)
            gevent.sleep(0)
            for n in range(3):
                gevent.get_hub().loop.timer(0.001).start(callback, n)
                gevent.sleep(0.01)
            """
    ) == ["got 0", "callback", "got 1", "callback", "got 2", "callback"]


def test_a_callback_that_notifies_goes_on_in_its_own_frame():
    assert lines_of(
        """
            import gevent, sys
            from gevent.event import Event
            event = Event()
            def waiter():
                while True:
                    event.wait()
                    event.clear()
                    gevent.sleep(0)
                    print("woken")
            def callback():
                event.set()
                event._notify_links()
                print(sys._getframe().f_code.co_name)
            gevent.spawn(waiter)
            gevent.sleep(0)
            gevent.get_hub().loop.run_callback(callback)
            gevent.sleep(0.01)
            """
    ) == ["callback", "woken"]


def test_a_comparison_may_take_the_heap_away_that_it_is_for():
    assert lines_of(
        """
            from gevent.queue import PriorityQueue
            q = PriorityQueue()
            class Item:
                def __init__(self, n):
                    self.n = n
                def __lt__(self, other):
                    q.queue = []
                    return self.n < other.n
            for _ in range(30):
                for use in (lambda: q.put(Item(-1)), q.get):
                    q.queue = [Item(n) for n in range(31)]
                    try:
                        use()
                    except RuntimeError:
                        pass
            print("alive")
            """
    ) == ["alive"]


def test_the_collector_may_change_the_stack_that_is_asked_for():
    assert lines_of(
        """
            import gevent, gc
            def spawn(depth):
                return spawn(depth - 1) if depth else gevent.spawn(lambda: None)
            for _ in range(100):
                g = spawn(9)
                def change(phase, info):
                    g.spawning_stack = None
                gc.collect()
                gc.callbacks.append(change)
                gc.set_threshold(1)
                g.spawning_stack
                gc.set_threshold(700)
                gc.callbacks.remove(change)
                g.kill()
            print("alive")
            """
    ) == ["alive"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("args", [1, 2]), ("kwargs", [1]), ("_exc_info", ()), ("_exc_info", 5)],
)
def test_what_a_greenlet_is_called_with_has_its_type(name, value):
    g = gevent.Greenlet(lambda *args, **kwargs: (args, kwargs))
    with pytest.raises(TypeError, match="must be"):
        setattr(g, name, value)
    g.args, g.kwargs = (1,), {"a": 2}
    g.start()
    assert g.get() == ((1,), {"a": 2})
    assert g.successful()
