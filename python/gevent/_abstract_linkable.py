"""What events, asynchronous results and semaphores have in common: links, waiters, notification.

An object has one list of links in the order in which they came. A link is a function, a greenlet
that waits, or a native thread that waits without a hub. Each greenlet and function belongs to the
hub of the thread that put it there, and only that hub ever calls it; other threads ask that hub
to do so by ``run_callback_threadsafe``. So every method here may be used from any thread.

The object's lock is held only while the list and the object's own state are looked at and
changed: never while something of the user's is called and never over a switch. It is reentrant
because a finalizer may use the object at any moment in the thread that holds the lock.
"""

import os
import sys
from _thread import RLock, allocate_lock, get_ident

from greenlet import getcurrent

from gevent._hub_local import get_hub_if_exists
from gevent._hub_local import get_hub_noargs as get_hub
from gevent.exceptions import InvalidSwitchError, LoopExit
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


class AbstractLinkable:
    """The base of objects that can be waited for. Subclasses define `ready`."""

    __slots__ = ("__weakref__", "_links", "_lock", "_notifier", "_notify_all", "_thread", "hub")

    def __init__(self, hub=None):
        self._lock = RLock()
        self._links = []
        #: The hubs in which a notification is scheduled or running; `None` if there are none.
        self._notifier = None
        #: Whether a notification calls all links, or goes on only while the object is ready.
        self._notify_all = True
        #: The identifier of the only thread that used this object, or `MULTI`.
        self._thread = None
        #: The hub of the first greenlet that waited. It says nothing about who may use the object.
        self.hub = hub

    def linkcount(self):
        """Return how many functions and waiters are linked to this object."""
        return len(self._links)

    def ready(self):
        """Return whether waiting for this object would not block."""
        raise TypeError(f"{type(self).__name__} does not say when it is ready")

    def rawlink(self, callback):
        """Call *callback* with this object, once, when it is ready.

        The call is made in the hub of the current thread, so *callback* must not block.
        """
        if not callable(callback):
            raise TypeError(f"Expected callable: {callback!r}")
        self._saw_thread()
        hub = get_hub_if_exists()
        link = Link(callback, self.hub if hub is None else hub)
        with self._lock:
            self._links.append(link)
        self._check_and_notify()

    def unlink(self, callback):
        """Do not call *callback* any more, which was given to `rawlink`."""
        with self._lock:
            for index, link in enumerate(self._links):
                if link.callback is callback or link.callback == callback:
                    del self._links[index]
                    return

    def _saw_thread(self):
        ident = get_ident()
        if self._thread != ident:
            self._thread = ident if self._thread is None else MULTI

    # Notification

    def _check_and_notify(self):
        """Wake what is linked, if the object is ready. Any thread may call this."""
        if not self._links:
            return
        here = get_hub_if_exists()
        with self._lock:
            hubs, given = self._choose(here)
        for link in given:
            call_in(link.hub, self._resume, link)
        for hub in hubs:
            if hub is None:
                # No hub at all: nothing else is running, so it may as well happen now.
                self._notify_links(None)
                continue
            try:
                call_in(hub, self._notify_links, hub)
            except:
                self._forget_notifier(hub)
                raise

    def _choose(self, here):
        """Under the lock: wake native threads, and find out what has to be done in which hub.

        Returns the hubs in which a notification must be scheduled, and the greenlets of other hubs
        that were given what they wait for. *here* is this thread's hub or `None`.
        """
        hubs, given = [], []
        for link in self._links[:]:
            if not self.ready():
                break
            if link.lock is not None:
                self._links.remove(link)
                self._give(link)
                link.wake()
                continue
            hub = here if link.hub is None else link.hub
            if hub is not None and hub.loop is None:
                # Destroyed: there is nobody left to call this.
                self._links.remove(link)
                continue
            if link.taking and hub is not here:
                self._links.remove(link)
                self._give(link)
                given.append(link)
                continue
            if self._notifier is None:
                self._notifier = {}
            if hub not in self._notifier:
                self._notifier[hub] = True
                hubs.append(hub)
            if not self._notify_all:
                # First come, first served: the others are thought of when that hub is through.
                break
        return hubs, given

    def _give(self, link):
        """Under the lock: give *link* what it waits for, if it is a thing that can be given."""

    def _take_back(self, link):
        """Take back what `_give` gave to a waiter that did not come to know of it."""

    def _forget_notifier(self, hub):
        with self._lock:
            if self._notifier is not None:
                self._notifier.pop(hub, None)
                self._notifier = self._notifier or None

    def _notify_links(self, hub):
        """In *hub*: call the links that belong to it."""
        try:
            left = self._run_links(hub)
        finally:
            # A link may have forked, and then the child has no notifier any more.
            self._forget_notifier(hub)
        if left:
            with self._lock:
                if self._notifier is None:
                    self._notifier = {}
                again = self._notifier.setdefault(hub, None) is None
                self._notifier[hub] = True
            if again:
                call_in(hub, self._notify_links, hub)
        else:
            self._check_and_notify()

    def _belonging(self, hub, arrived):
        with self._lock:
            return [
                link
                for link in self._links
                if link.lock is None
                and link.arrived == arrived
                and (link.hub is hub or link.hub is None)
            ]

    def _run_links(self, hub):
        """Call what was linked before, then those that came to wait in the meantime.

        Links that are added by one of the calls are not called. Returns whether there are
        greenlets left that already know that the object was ready.
        """
        called = {}
        for arrived in (False, True):
            links = self._belonging(hub, arrived)
            final = links[-1].callback if links else None
            for link in links:
                with self._lock:
                    if not (arrived or self._notify_all or self.ready()):
                        return False
                    try:
                        self._links.remove(link)
                    except ValueError:
                        continue  # An earlier call has unlinked it.
                # One function is called once in a round, even if it was linked twice.
                if id(link.callback) not in called:
                    called[id(link.callback)] = link.callback
                    self._call(link, hub)
                if link.callback is final:
                    break  # As upstream: what comes after it has a round of its own.
        return bool(self._belonging(hub, True))

    def _resume(self, link):
        """In the hub of *link*: switch to the greenlet, if it still waits."""
        if link.callback is not None:
            self._call(link, link.hub)

    def _call(self, link, hub):
        callback = link.callback
        try:
            callback(self)
        except:  # noqa: E722 (nothing may leave the hub)
            if hub is None:
                import traceback

                traceback.print_exc()
            else:
                hub.handle_error((callback, self), *sys.exc_info())

    # Waiting

    def _wait(self, timeout=None):
        self._saw_thread()
        hub = get_hub_if_exists()
        with self._lock:
            ready = self.ready()
            notifying = ready and self._notifier is not None and hub in self._notifier
        if not ready:
            return self._wait_return_value(True, self._wait_core(timeout))
        result = self._wait_return_value(False, False)
        if notifying and hub is not None and getcurrent() is not hub:
            # Others have waited for longer; they run first.
            link = Link(getcurrent().switch, hub)
            link.arrived = True
            self._park(hub, link, None, ())
        return result

    def _wait_core(self, timeout, catch=Timeout):
        """Wait until notified. Returns whether that happened before *timeout* seconds were over.

        If *catch* is ``()``, the timeout is raised instead.
        """
        hub = hub_for_waiting()
        if hub is None:
            return self._wait_in_thread(timeout, catch)
        if self.hub is None:
            self.hub = hub
        return self._park(hub, Link(getcurrent().switch, hub), timeout, catch)

    def _wait_in_thread(self, timeout, catch):
        link = ThreadLink()
        with self._lock:
            if self.ready():
                return True
            self._links.append(link)
        try:
            link.block(timeout_seconds(timeout))
        finally:
            with self._lock:
                if link in self._links:
                    self._links.remove(link)
        if link.woken:
            return True
        if catch == ():
            if not isinstance(timeout, Timeout):
                # Given to the constructor, the seconds would make a timer, and that a hub.
                timeout, seconds = Timeout(), timeout
                timeout.seconds = seconds
            raise timeout
        return False

    def _park(self, hub, link, timeout, catch):
        """Link *link*, switch to *hub*, and return when it was called, or after *timeout*."""
        linked = True
        try:
            with Timeout._start_new_or_dummy(timeout) as timer:
                try:
                    with self._lock:
                        # Looked at once more under the lock, as another thread may have made
                        # it ready since the caller looked.
                        if not link.arrived and self.ready():
                            return True
                        self._links.append(link)
                    result = switch_to_hub(hub, self._thread is MULTI)
                    if result is not self:
                        raise InvalidSwitchError(
                            f"Invalid switch into {type(self).__name__}.wait(): {result!r}"
                        )
                    # Whoever calls a link has taken it out. Not to look for it again matters
                    # when thousands wait.
                    linked = False
                    return True
                except catch as ex:
                    if ex is not timer:
                        raise
                    # It may have come at the last moment.
                    return link.took
        except BaseException:
            if link.took:
                link.took = False
                self._take_back(link)
            raise
        finally:
            link.callback = None
            if linked:
                with self._lock:
                    if link in self._links:
                        self._links.remove(link)

    def _wait_return_value(self, waited, wait_success):
        """Return the result of a wait: whether it blocked, and if it did, whether in time."""
        return None

    def _at_fork_reinit(self):
        """In the child after a fork: drop the parent's other threads, as they do not exist here."""
        here = get_hub_if_exists()
        self._lock = RLock()
        self.hub = None
        self._notifier = None
        self._thread = None
        self._links[:] = [
            link for link in self._links if link.lock is None and link.hub in (here, None)
        ]
