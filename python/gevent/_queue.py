"""How getters and putters of queues and channels wait for one another.

A waiter belongs to the hub of its thread, and only that hub switches to it; a native thread without
a hub blocks on a lock. Whoever makes it possible for a waiter to go on, in whatever thread, has
the waiter's hub look after it. A waiter that finds that another thread was faster waits again.
"""

import sys
from _thread import RLock, get_ident
from collections import deque
from time import monotonic

from greenlet import getcurrent

from gevent._abstract_linkable import (
    MULTI,
    Link,
    ThreadLink,
    call_in,
    hub_for_waiting,
    switch_to_hub,
    timeout_seconds,
)
from gevent._hub_local import get_hub_if_exists
from gevent.exceptions import InvalidSwitchError
from gevent.timeout import Timeout

__all__ = [
    "Exchange",
    "ItemWaiter",
    "Orphan",
]


class ItemWaiter(Link):
    """A greenlet that waits to put or to get an item."""

    __slots__ = ("error", "item")

    def __init__(self, item, hub):
        Link.__init__(self, getcurrent().switch, hub)
        self.item = item
        #: An exception to raise in the waiter.
        self.error = None


class _ThreadItemWaiter(ThreadLink):
    """A native thread without a hub that waits to put or to get an item."""

    __slots__ = ("error", "item")

    def __init__(self, item):
        ThreadLink.__init__(self)
        self.item = item
        self.error = None


class Orphan(ItemWaiter):
    """A putter that is gone, though its item is still to be taken."""

    __slots__ = ()

    def __init__(self, item):
        ItemWaiter.__init__(self, item, None)
        self.callback = None


class Exchange:
    """The base of queues and channels: two lists of waiters and a lock.

    The lock is held while items and waiters are looked at, and never over a switch. It is reentrant
    because a finalizer may use the queue at any moment in the thread that holds the lock.

    A subclass defines ``_unlock(hub)``, which serves the waiters that the greenlets of *hub* can
    be switched to for.
    """

    __slots__ = ("__weakref__", "_lock", "_notifier", "_thread", "getters", "hub", "putters")

    def __init__(self):
        self._lock = RLock()
        # In the order of their arrival, which is the order in which they are served.
        self.getters = deque()
        self.putters = deque()
        #: The hubs in which `_unlock` is scheduled.
        self._notifier = {}
        #: The identifier of the only thread that used this object, or `MULTI`.
        self._thread = None
        #: The hub of the first greenlet that waited. It says nothing about who may use the object.
        self.hub = None

    def _saw_thread(self):
        ident = get_ident()
        if self._thread != ident:
            self._thread = ident if self._thread is None else MULTI

    @staticmethod
    def _in_hub():
        """Return whether the caller is a hub, which cannot wait."""
        return getcurrent() is get_hub_if_exists()

    def _schedule_unlock(self, hub):
        """Have *hub* call `_unlock`."""
        with self._lock:
            if hub in self._notifier:
                return
            self._notifier[hub] = True
        try:
            call_in(hub, self._run_unlock, hub)
        except:
            self._notifier.pop(hub, None)
            raise

    def _run_unlock(self, hub):
        try:
            self._unlock(hub)
        finally:
            self._notifier.pop(hub, None)
        self._wake()

    def _finish(self, link):
        """Let the waiter *link*, already taken off its list, go on: at once if in its hub."""
        if link.lock is not None:
            link.wake()
        elif getcurrent() is link.hub:
            self._resume(link)
        elif link.hub is not None:
            call_in(link.hub, self._resume, link)

    def _resume(self, link):
        """In the hub of *link*: switch to the greenlet, if it still waits."""
        callback = link.callback
        if callback is not None:
            try:
                callback(link)
            except:  # noqa: E722 (nothing may leave the hub)
                link.hub.handle_error(callback, *sys.exc_info())

    def _wait(self, waiters, item, timeout, timeout_error, satisfied):
        """Wait in *waiters* until ``satisfied(link)``, which is called with the lock held.

        *satisfied* returns a tuple with the result of the wait, or `None` to go on waiting.
        """
        self._saw_thread()
        hub = hub_for_waiting()
        if hub is None:
            return self._wait_in_thread(waiters, item, timeout, timeout_error, satisfied)
        if self.hub is None:
            self.hub = hub
        with Timeout._start_new_or_dummy(timeout, timeout_error) as timer:
            link = ItemWaiter(item, hub)
            try:
                with self._lock:
                    result = satisfied(link)
                    if result is None:
                        waiters.append(link)
                while result is None:
                    if self._others_wait(waiters):
                        self._wake()
                    woken = switch_to_hub(hub, self._thread is MULTI)
                    if woken is not link:
                        raise InvalidSwitchError(
                            f"Invalid switch into {type(self).__name__}: {woken!r}"
                        )
                    if link.error is not None:
                        raise link.error
                    with self._lock:
                        result = satisfied(link)
                        if result is None:
                            # Another thread was faster.
                            waiters.appendleft(link)
            except BaseException as ex:
                # Once it is off the list, nobody can give it anything any more.
                with self._lock:
                    self._take_off(waiters, link)
                if not link.took:
                    raise
                result = self._took_but_failed(waiters, link, ex, timer)
            finally:
                link.callback = None
                self._leave(waiters, link)
        return result[0]

    def _wait_in_thread(self, waiters, item, timeout, timeout_error, satisfied):
        timeout = timeout_seconds(timeout)
        deadline = None if timeout is None else monotonic() + timeout
        link = _ThreadItemWaiter(item)
        try:
            while True:
                with self._lock:
                    result = satisfied(link)
                    if result is not None:
                        return result[0]
                    if link.error is not None:
                        raise link.error
                    if link.woken:
                        # Another thread was faster.
                        link.lock.acquire(False)
                        link.woken = False
                        waiters.appendleft(link)
                    elif link not in waiters:
                        waiters.append(link)
                if self._others_wait(waiters):
                    self._wake()
                left = None if deadline is None else deadline - monotonic()
                if not link.block(left) and not link.woken:
                    with self._lock:
                        result = satisfied(link)
                        if result is not None:
                            return result[0]
                        self._take_off(waiters, link)
                    raise timeout_error
        finally:
            self._leave(waiters, link)

    @staticmethod
    def _take_off(waiters, link):
        try:
            waiters.remove(link)
        except (AttributeError, ValueError):
            pass

    def _leave(self, waiters, link):
        with self._lock:
            self._take_off(waiters, link)
        if link.lock is not None and link.woken:
            # It may have been woken in place of somebody else.
            self._wake()

    def _others_wait(self, waiters):
        return self.putters if waiters is self.getters else self.getters

    def _took_but_failed(self, waiters, link, ex, timer):
        """What a waiter waited for has happened, and then *ex* came: return a result or raise."""
        raise ex

    def _wake(self):
        """Have the waiters served whose turn it is. Any thread may call this."""

    def _shut(self, waiters, error):
        """Raise *error* in all *waiters*."""
        with self._lock:
            links = list(waiters)
            waiters.clear()
            for link in links:
                link.error = error
        for link in links:
            if link.lock is not None:
                link.wake()
            else:
                call_in(link.hub, self._resume, link)
