"""`gevent.queue.Channel`: from hand to hand, whoever comes first, whoever is late or killed."""

import gc
import threading
import weakref

import pytest

import gevent
from gevent import hub as _hub
from gevent.queue import Channel, Empty, Full


def in_hub(function):
    """Call *function* in the hub; return what it returned or raised."""
    outcome = []

    def call():
        try:
            outcome.append(function())
        except Exception as ex:
            outcome.append(ex)

    _hub.get_hub().loop.run_callback(call)
    gevent.sleep(0.001)
    return outcome[0]


def waiting(function, *args):
    """Return a greenlet that waits in *function*."""
    greenlet = gevent.spawn(function, *args)
    gevent.sleep(0)
    gevent.sleep(0)
    return greenlet


def test_getters_and_putters_meet_in_the_order_of_coming():
    channel, log = Channel(), []

    def put(item):
        channel.put(item)
        log.append(("put", item))

    def get():
        log.append(("got", channel.get()))

    tasks = [gevent.spawn(put, item) for item in "abc"]
    gevent.sleep(0)
    assert channel.balance == 3
    tasks += [gevent.spawn(get) for _ in range(3)]
    gevent.joinall(tasks, raise_error=True)
    assert [item for kind, item in log if kind == "put"] == list("abc")
    assert [item for kind, item in log if kind == "got"] == list("abc")
    # As each pair meets, the getter goes on first.
    assert log[:2] == [("got", "a"), ("put", "a")]
    assert channel.balance == 0


def test_a_put_waits_although_a_getter_is_there():
    channel, log = Channel(), []
    getter = waiting(lambda: log.append(channel.get()))
    gevent.spawn(log.append, "other")
    channel.put("item")
    log.append("put")
    getter.join()
    assert sorted(log) == ["item", "other", "put"]
    assert log.index("item") < log.index("put")


def test_limits():
    channel = Channel()
    with pytest.raises(Full):
        channel.put(1, timeout=0.001)
    with pytest.raises(Empty):
        channel.get(timeout=0.001)
    with pytest.raises(Full):
        channel.put_nowait(1)
    with pytest.raises(Empty):
        channel.get_nowait()
    with pytest.raises(Full):
        channel.put(1, block=False)
    with pytest.raises(Empty):
        channel.get(block=False)
    limit = gevent.Timeout(0.001)
    with pytest.raises(gevent.Timeout) as caught:
        channel.get(timeout=limit)
    assert caught.value is limit
    limit = gevent.Timeout(0.001)
    with pytest.raises(gevent.Timeout) as caught:
        channel.put(1, timeout=limit)
    assert caught.value is limit
    assert (len(channel.getters), len(channel.putters)) == (0, 0)
    with pytest.raises(ValueError):
        Channel(2)


def test_without_blocking_whoever_waits_is_met():
    channel = Channel()
    putter = waiting(channel.put, "a")
    assert channel.get_nowait() == "a"
    putter.get(timeout=30)
    getter = waiting(channel.get)
    channel.put_nowait("b")
    assert getter.get(timeout=30) == "b"
    putter = waiting(channel.put, "c")
    assert channel.get(timeout=0) == "c"
    putter.get(timeout=30)


def test_the_hub_meets_those_who_wait():
    channel = Channel()
    assert isinstance(in_hub(lambda: channel.put(1)), Full)
    getter = waiting(channel.get)
    assert in_hub(lambda: channel.put("a")) is None
    assert getter.get(timeout=30) == "a"
    putter = waiting(channel.put, "b")
    assert in_hub(channel.get) == "b"
    putter.get(timeout=30)


@pytest.mark.ours
def test_the_hub_does_not_wait():
    assert isinstance(in_hub(Channel().get), Empty)


def test_who_is_killed_leaves_the_line():
    channel = Channel()
    for function in (channel.get, lambda: channel.put("never")):
        first = waiting(function)
        first.kill()
        assert channel.balance == 0
    getter = waiting(channel.get)
    channel.put("item")
    assert getter.get(timeout=30) == "item"


@pytest.mark.ours
def test_an_item_outlives_the_getter_that_is_killed_on_its_way():
    channel, error = Channel(), RuntimeError("killed")
    first, second = waiting(channel.get), waiting(channel.get)
    # A thread without a hub lets them meet at once; the first getter hears of it when the hub runs.
    thread = threading.Thread(target=channel.put, args=("item",))
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    first.kill(error, block=False)
    assert second.get(timeout=30) == "item"
    assert first.exception is error or first.get(timeout=30) == "item"
    assert channel.balance == 0


@pytest.mark.ours
def test_an_item_that_its_getter_left_is_kept_for_the_next():
    channel = Channel()
    first = gevent.spawn(channel.get)
    gevent.sleep(0)
    thread = threading.Thread(target=channel.put, args=("item",))
    thread.start()
    thread.join(30)
    # Thrown into before the hub has run at all; when it has ended, the hub comes back here.
    gevent.get_hub().loop.run_callback(gevent.getcurrent().switch)
    first.throw(gevent.GreenletExit())
    assert isinstance(first.value, gevent.GreenletExit)
    assert (channel.balance, list(channel.putters)) == (1, ["item"])
    assert channel.get(timeout=30) == "item"


def test_items_of_an_iteration():
    channel = Channel()

    def put():
        for item in (1, 2, StopIteration, 4):
            channel.put(item)

    putter = gevent.spawn(put)
    assert list(channel) == [1, 2]
    assert next(channel) == 4
    putter.get(timeout=30)


def test_it_is_like_a_queue_without_room():
    channel = Channel()
    assert (channel.qsize(), channel.empty(), channel.full()) == (0, True, True)
    assert weakref.ref(channel)() is channel
    putter = waiting(channel.put, "a")
    assert "putters[1]" in repr(channel)
    assert (channel.qsize(), len(channel.putters)) == (0, 1)
    channel.get()
    putter.join()
    getter = waiting(channel.get)
    assert "getters[1]" in str(channel)
    getter.kill()


@pytest.mark.ours
def test_nothing_of_it_stays():
    class Kept(Channel):
        pass

    class Item:
        pass

    channel, item = Kept(), Item()
    item.channel, channel.item = channel, item
    seen = weakref.ref(item)
    putter = waiting(channel.put, item)
    assert channel.get() is item
    putter.join()
    putter = getter = None
    late = waiting(channel.put, item)
    late.kill()
    del late, channel, item, putter, getter
    gc.collect()
    assert seen() is None


@pytest.mark.ours
def test_threads_and_greenlets_lose_nothing():
    channel, each, got = Channel(), 200, []
    lock = threading.Lock()

    def put(start):
        for number in range(start, start + each):
            channel.put(number)

    def get():
        mine = [channel.get() for _ in range(each)]
        with lock:
            got.extend(mine)

    def in_its_hub(function, *args):
        gevent.spawn(function, *args).get()
        gevent.get_hub().destroy()

    threads = [
        threading.Thread(target=put, args=(0,)),
        threading.Thread(target=in_its_hub, args=(put, each)),
        threading.Thread(target=get),
        threading.Thread(target=in_its_hub, args=(get,)),
    ]
    for thread in threads:
        thread.start()
    mine = [gevent.spawn(put, 2 * each), gevent.spawn(get)]
    gevent.joinall(mine, timeout=30, raise_error=True)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert sorted(got) == list(range(3 * each))
    assert channel.balance == 0


@pytest.mark.ours
def test_a_put_whose_limit_cannot_be_set_keeps_no_item():
    class Broken(gevent.Timeout):
        def __enter__(self):
            raise ZeroDivisionError

    class Item:
        pass

    channel, item = Channel(), Item()
    gone = weakref.ref(item)
    with pytest.raises(ZeroDivisionError):
        channel.put(item, timeout=Broken(5))
    del item
    gc.collect()
    assert gone() is None
    assert not channel.putters
