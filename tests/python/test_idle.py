"""What costs nothing: an idle hub, and what `import gevent` leaves out. And links in the hub."""

import subprocess
import sys
import threading

import pytest

import gevent
from gevent.event import Event


@pytest.mark.ours
def test_an_idle_hub_does_not_poll():
    """It looks once more on its way into a long sleep, and then sleeps until something comes."""
    loop, woken = gevent.get_hub().loop, Event()
    waker = loop.async_()
    waker.start(woken.set)
    gevent.sleep(0.1)
    before = loop.statistics["polls"]
    timer = threading.Timer(3, waker.send)
    timer.start()
    woken.wait()
    polls = loop.statistics["polls"] - before
    timer.join()
    waker.close()
    # Two for the sleep, and one that finds the wake.
    assert polls <= 3


def test_import_leaves_out_what_few_need():
    def modules(name):
        code = f"import {name}, sys; print(*sys.modules)"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        return set(done.stdout.split())

    # Errors are printed when there may be no descriptor left to import what that needs; from
    # CPython 3.14.10 on it needs more.
    loaded = modules("gevent") - modules("traceback")
    slow = {"asyncio", "dataclasses", "inspect", "logging", "pprint", "select", "socket", "ssl"}
    slow |= {"subprocess", "threading", "selectors", "concurrent.futures", "json", "email"}
    assert not loaded & slow


def test_link_after_a_waiter_runs_in_the_hub():
    """The waiter goes on in between; its frames are not the link's."""
    callers = []

    def link(_):
        frame = sys._getframe().f_back
        while frame is not None:
            callers.append(frame.f_code.co_name)
            frame = frame.f_back

    def body():
        gevent.sleep(0)
        g.rawlink(link)

    g = gevent.spawn(body)
    g.get()
    gevent.sleep(0)
    assert "test_link_after_a_waiter_runs_in_the_hub" not in callers
