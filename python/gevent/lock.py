"""Locks: semaphores with and without bounds, and a lock that its owner can acquire again."""

from gevent._semaphore import BoundedSemaphore, Semaphore
from gevent.hub import getcurrent

__all__ = [
    "BoundedSemaphore",
    "DummySemaphore",
    "RLock",
    "Semaphore",
]


class DummySemaphore:
    """DummySemaphore(value=None) -> DummySemaphore

    Has the methods of a `Semaphore` that is never exhausted: nothing blocks or counts. Use it
    where a limit is optional.
    """

    def __init__(self, value=None):
        """Accept a *value* as `Semaphore` does, and ignore it."""

    def __str__(self):
        return f"<{type(self).__name__}>"

    def locked(self):
        """Return false."""
        return False

    def ready(self):
        """Return true."""
        return True

    def release(self):
        """Do nothing."""

    def rawlink(self, callback):
        """Do nothing."""

    def unlink(self, callback):
        """Do nothing."""

    def wait(self, timeout=None):
        """Return 1 at once."""
        return 1

    def acquire(self, blocking=True, timeout=None):
        """Return true at once."""
        return True

    def __enter__(self):
        pass

    def __exit__(self, typ, val, tb):
        pass


class RLock:
    """A lock that belongs to a greenlet, which may acquire it any number of times.

    It must release it as many times. A native thread without other greenlets counts as a greenlet,
    so this works between threads as well as between greenlets.
    """

    __slots__ = ("__weakref__", "_block", "_count", "_owner")

    def __init__(self, hub=None):
        self._block = Semaphore(1, hub)
        self._owner = None
        self._count = 0

    def __repr__(self):
        return "<%s at 0x%x _block=%s _count=%r _owner=%r)>" % (
            type(self).__name__,
            id(self),
            self._block,
            self._count,
            self._owner,
        )

    def acquire(self, blocking=True, timeout=None):
        """Acquire the lock, waiting for it if *blocking*, at most *timeout* seconds.

        Returns whether it was acquired.
        """
        me = getcurrent()
        if self._owner is me:
            self._count += 1
            return 1
        acquired = self._block.acquire(blocking, timeout)
        if acquired:
            self._owner = me
            self._count = 1
        return acquired

    def __enter__(self):
        return self.acquire()

    def release(self):
        """Release the lock once; `RuntimeError` if it does not belong to the current greenlet."""
        me = getcurrent()
        if self._owner is not me:
            raise RuntimeError(
                f"cannot release un-acquired lock. Owner: {self._owner!r} Current: {me!r}"
            )
        self._count -= 1
        if not self._count:
            self._owner = None
            self._block.release()

    def __exit__(self, typ, value, tb):
        self.release()

    def locked(self):
        """Return whether the lock is held."""
        return self._count > 0

    # For threading.Condition

    def _acquire_restore(self, count_owner):
        self._block.acquire()
        self._count, self._owner = count_owner

    def _release_save(self):
        saved = (self._count, self._owner)
        self._count = 0
        self._owner = None
        self._block.release()
        return saved

    def _is_owned(self):
        return self._owner is getcurrent()
