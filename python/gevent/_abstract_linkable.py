"""The base of what can be waited for, and how code in Python waits for other threads.

The class is native, like the events, semaphores and results that are made of it. What is here in
Python is for the queues' rarer half.
"""

import os
import sys
from _thread import allocate_lock, get_ident


from gevent._core import AbstractLinkable, set_main_thread
from gevent._hub_local import get_hub_if_exists
from gevent._hub_local import get_hub_noargs as get_hub
from gevent.exceptions import LoopExit
from gevent.timeout import Timeout

__all__ = [
    "AbstractLinkable",
]

#: In place of a thread's identifier: the object has been used by more than one thread.
MULTI = object()

#: Identifiers of native threads that gevent started for itself: workers of pools, monitors. They
#: use objects of the program only while they run a task, and then the loop knows about it.
helper_thread_idents = set()

_main_ident = get_ident()


def _after_fork_in_child():
    global _main_ident
    set_main_thread()
    _main_ident = get_ident()
    helper_thread_idents.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _other_threads_exist():
    """Tell whether there is another native thread that could use an object of the program."""
    others = sys._current_frames().keys() - helper_thread_idents
    others.discard(get_ident())
    return bool(others)


def hub_for_waiting():
    """Return the hub in which the current greenlet can wait, or `None` if its thread has to.

    A native thread without a hub has no other greenlets, so it loses nothing by blocking; only in
    the main thread a hub is created.
    """
    hub = get_hub_if_exists()
    if hub is None and get_ident() == _main_ident:
        hub = get_hub()
    return hub


def switch_to_hub(hub, shared):
    """Switch to *hub* and return what the greenlet is switched to with.

    The loop ends, and `LoopExit` is raised, when it has nothing to wait for. Not so if what the
    greenlet waits for is *shared* with other threads, or, when it comes to that, there are any.
    """
    watcher = _keep_alive(hub) if shared else None
    try:
        while True:
            try:
                return hub.switch()
            except LoopExit:  # noqa: PERF203 (at most twice)
                if watcher is not None or not _other_threads_exist():
                    raise
                watcher = _keep_alive(hub)
    finally:
        if watcher is not None:
            watcher.stop()
            watcher.close()


def _keep_alive(hub):
    """Return a watcher because of which the loop waits for other threads."""
    watcher = hub.loop.async_()
    watcher.start(_nothing)
    return watcher


def _nothing():
    """The callback of a watcher that only has to exist."""


def call_in(hub, function, arg):
    """Have *hub*, of whatever thread, call ``function(arg)`` soon, unless it was destroyed."""
    loop = hub.loop
    if hub is get_hub_if_exists():
        loop.run_callback(function, arg)
    elif loop is not None:
        loop.run_callback_threadsafe(function, arg)


class Link:
    """A function to call when the object is ready, in *hub*.

    If *hub* is `None`, there was none in the thread, and whoever notifies calls it.
    """

    __slots__ = ("arrived", "callback", "hub", "taking", "took")

    #: For a thread that waits natively: the lock on which it blocks.
    lock = None

    def __init__(self, callback, hub, taking=False):
        self.callback = callback
        self.hub = hub
        #: The waiter wants something that only one can have, and it may be given by another thread.
        self.taking = taking
        #: It was given.
        self.took = False
        #: The greenlet found the object ready, and waits only for those that came before it.
        self.arrived = False


class ThreadLink(Link):
    """A native thread that blocks until its *lock* is released."""

    __slots__ = ("lock", "woken")

    def __init__(self, taking=False):
        Link.__init__(self, None, None, taking)
        self.lock = allocate_lock()
        self.lock.acquire()
        self.woken = False

    def wake(self):
        self.woken = True
        self.lock.release()

    def block(self, timeout):
        """Block until `wake` is called, at most *timeout* seconds unless that is `None`."""
        if timeout is None:
            return self.lock.acquire()
        return self.lock.acquire(True, min(max(timeout, 0), _TIMEOUT_MAX))


_TIMEOUT_MAX = 3600 * 24 * 365


def timeout_seconds(timeout):
    """Return the seconds of a timeout that may also be a `gevent.Timeout`, or `None`."""
    return timeout.seconds if isinstance(timeout, Timeout) else timeout
