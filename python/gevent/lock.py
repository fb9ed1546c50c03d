"""Locks: semaphores with and without bounds, and a lock that its owner can acquire again."""

from gevent._core import RLock
from gevent._semaphore import BoundedSemaphore, Semaphore

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
