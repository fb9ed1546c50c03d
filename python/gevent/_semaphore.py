"""`Semaphore` and `BoundedSemaphore`. Import them from `gevent.lock`."""

from _thread import get_ident
from time import monotonic

from greenlet import getcurrent

from gevent._abstract_linkable import (
    AbstractLinkable,
    Link,
    ThreadLink,
    hub_for_waiting,
    timeout_seconds,
)
from gevent.timeout import Timeout

__all__ = [
    "BoundedSemaphore",
    "Semaphore",
]


class Semaphore(AbstractLinkable):
    """Semaphore(value=1) -> Semaphore

    A counter that `release` increases and `acquire` decreases, which waits while it is zero.

    Greenlets of one thread are woken in the order in which they came, and one that finds the
    counter above zero need not queue. A waiter of another native thread is given the
    semaphore by the `release` itself, so that no thread can keep it to itself.

    All methods may be called from any native thread; neither those that do not block nor a thread
    without a hub ever create a hub. A semaphore is a context manager, and belongs to nobody:
    any greenlet may release it. `BoundedSemaphore` finds releases too many.
    """

    __slots__ = ("counter",)

    def __init__(self, value=1, hub=None):
        if value < 0:
            raise ValueError("semaphore initial value must be >= 0")
        super().__init__(hub)
        self.counter = value
        self._notify_all = False

    def __str__(self):
        return "<%s at 0x%x counter=%s _links[%s]>" % (
            type(self).__name__,
            id(self),
            self.counter,
            self.linkcount(),
        )

    def locked(self):
        """Return whether `acquire` would have to wait."""
        return self.counter <= 0

    def ready(self):
        """Return whether `acquire` would not have to wait."""
        return self.counter > 0

    def release(self):
        """Increase the counter and wake a waiter. Returns the counter before anyone was woken."""
        with self._lock:
            if self._thread != get_ident():
                self._saw_thread()
            self.counter = counter = self.counter + 1
        if self._links:
            self._check_and_notify()
        return counter

    def _start_notify(self):
        self._check_and_notify()

    def _give(self, link):
        if link.taking:
            self.counter -= 1
            link.took = True

    def _take_back(self, link):
        with self._lock:
            self.counter += 1
        self._check_and_notify()

    def _wait_return_value(self, waited, wait_success):
        return wait_success if waited else True

    def wait(self, timeout=None):
        """Wait until `acquire` would not block, at most *timeout* seconds; acquire nothing.

        Returns the counter, which is 0 if the time is over or another greenlet was faster.
        """
        if self.counter <= 0:
            self._wait(timeout)
        return self.counter

    def acquire(self, blocking=True, timeout=None):
        """Decrease the counter, after waiting until it is above zero.

        Returns true if that was done. It was not if the counter was zero and *blocking* is false,
        or it stayed zero for *timeout* seconds.
        """
        with self._lock:
            if self._thread != get_ident():
                self._saw_thread()
            if self.counter > 0:
                self.counter -= 1
                return True
        if not blocking:
            return False
        hub = hub_for_waiting()
        if hub is None:
            return self._acquire_in_thread(timeout)
        if self.hub is None:
            self.hub = hub
        return self._acquire_in_hub(hub, timeout)

    _py3k_acquire = acquire

    def _take(self):
        with self._lock:
            if self.counter > 0:
                self.counter -= 1
                return True
        return False

    def _acquire_in_hub(self, hub, timeout):
        with Timeout._start_new_or_dummy(timeout) as timer:
            try:
                while not self._take():
                    link = Link(getcurrent().switch, hub, taking=True)
                    self._park(hub, link, None, ())
                    # Woken by this thread's hub the counter is there for the taking, unless yet
                    # another thread was faster.
                    if link.took:
                        break
                return True
            except Timeout as ex:
                if ex is not timer:
                    raise
                return False

    def _acquire_in_thread(self, timeout):
        timeout = timeout_seconds(timeout)
        deadline = None if timeout is None else monotonic() + timeout
        link = ThreadLink(taking=True)
        with self._lock:
            if self.counter > 0:
                self.counter -= 1
                return True
            self._links.append(link)
        try:
            link.block(None if deadline is None else deadline - monotonic())
        except:
            with self._lock:
                took = link.took
                link.took = False
            if took:
                self._take_back(link)
            raise
        finally:
            with self._lock:
                if link in self._links:
                    self._links.remove(link)
        return link.took

    def __enter__(self):
        self.acquire()

    def __exit__(self, t, v, tb):
        self.release()


class BoundedSemaphore(Semaphore):
    """BoundedSemaphore(value=1) -> BoundedSemaphore

    A `Semaphore` whose counter must not exceed its initial value: a release too many is a
    `ValueError` instead of a silent mistake.
    """

    __slots__ = ("_initial_value",)

    #: What a release too many raises.
    _OVER_RELEASE_ERROR = ValueError

    def __init__(self, *args, **kwargs):
        Semaphore.__init__(self, *args, **kwargs)
        self._initial_value = self.counter

    def release(self):
        """Increase the counter and wake a waiter; an error if nobody had acquired it."""
        with self._lock:
            if self.counter >= self._initial_value:
                raise self._OVER_RELEASE_ERROR("Semaphore released too many times")
            self.counter = counter = self.counter + 1
            if self._thread != get_ident():
                self._saw_thread()
        if self._links:
            self._check_and_notify()
        if counter == self._initial_value:
            # Nobody holds it: the next thread that uses it may be another one.
            self.hub = None
        return counter

    def _at_fork_reinit(self):
        super()._at_fork_reinit()
        self.counter = self._initial_value
