"""The API that this project was asked for, where it is wider than upstream's or easy to forget.

The words are those of tools/api_dump.py: `a` is required, `b=` may be left out.
"""

import importlib
import inspect

import pytest
from test_api import complaint, words_of

import gevent
from gevent import pool

ASKED = {
    "gevent:spawn": "function *args **kwargs",
    "gevent:spawn_later": "seconds function *args **kwargs",
    "gevent:spawn_raw": "function *args **kwargs",
    "gevent:joinall": "greenlets timeout= raise_error=",
    "gevent:killall": "greenlets exception= block= timeout=",
    "gevent:kill": "greenlet exception= block= timeout=",
    "gevent:sleep": "seconds=",
    "gevent:idle": "priority=",
    "gevent:get_hub": "",
    "gevent:getcurrent": "",
    "gevent:iwait": "objects timeout= count=",
    "gevent:wait": "objects timeout= count=",
    "gevent:fork": "",
    "gevent:reinit": "",
    "gevent:signal_handler": "signalnum handler",
    "gevent:getswitchinterval": "",
    "gevent:setswitchinterval": "interval",
    "gevent:with_timeout": "seconds function *args **kwargs",
    "gevent.event:AsyncResult.get": "block= timeout=",
    "gevent.pool:Pool.__init__": "size= greenlet_class=",
    "gevent.pool:Pool.map": "func iterable maxsize=",
    "gevent.pool:Pool.imap": "func iterable maxsize=",
    "gevent.pool:Group.join": "timeout= raise_error=",
    "gevent.queue:Queue.__init__": "maxsize= items= unfinished_tasks=",
    "gevent.queue:Queue.join": "timeout=",
    "gevent.queue:Queue.task_done": "",
    "gevent.timeout:Timeout.__init__": "seconds= exception= ref= priority=",
    "gevent.server:StreamServer.__init__": "listener handle= backlog= spawn= **ssl_args",
    "gevent.hub:Hub.stop": "",
    "gevent.hub:Hub.join": "timeout=",
    "gevent.hub:Hub.run": "",
    "gevent.hub:Hub.switch": "",
}
# Called by keyword only where upstream names the parameter otherwise too.
OTHER_NAMES = {"greenlet", "objects", "func", "greenlets", "function", "interval", "signalnum"}


@pytest.mark.ours
@pytest.mark.parametrize("where", sorted(ASKED))
def test_asked_for(where):
    module, _, path = where.partition(":")
    value = importlib.import_module(module)
    for name in path.split("."):
        value = inspect.getattr_static(value, name)
    value = getattr(value, "__func__", value)
    ours = words_of(value)
    if ours is None or "*" in ours.split()[:1] or ours.startswith("*args"):
        return
    ours = " ".join(w for w in ours.split() if w != "self")
    said = complaint(ASKED[where], ours)
    assert not said or any(f"upstream's is {name}" in said for name in OTHER_NAMES), said


@pytest.mark.ours
def test_hub_stop_is_callable_and_harmless():
    hub = gevent.get_hub()
    hub.stop()
    gevent.sleep(0)
    assert gevent.spawn(lambda: 7).get(timeout=30) == 7


@pytest.mark.ours
@pytest.mark.parametrize("maxsize", [None, 1, 3])
def test_pool_map_takes_maxsize(maxsize):
    assert pool.Pool(2).map(abs, [-1, -2, -3], maxsize=maxsize) == [1, 2, 3]


@pytest.mark.ours
def test_kill_takes_block_and_timeout():
    parked = gevent.spawn(gevent.sleep, 100)
    gevent.sleep(0)
    gevent.kill(parked, block=True, timeout=5)
    assert parked.dead
    parked = gevent.spawn(gevent.sleep, 100)
    gevent.sleep(0)
    gevent.kill(parked, block=False)
    assert not parked.dead
    parked.join(30)
    assert isinstance(parked.value, gevent.GreenletExit)


@pytest.mark.ours
def test_timeout_seconds_is_an_attribute_of_the_class():
    assert hasattr(gevent.Timeout, "seconds")
    assert gevent.Timeout(3).seconds == 3
