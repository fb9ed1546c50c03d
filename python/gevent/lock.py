"""Locks: semaphores with and without bounds, and a lock that its owner can acquire again."""

from gevent._core import DummySemaphore, RLock
from gevent._semaphore import BoundedSemaphore, Semaphore

__all__ = [
    "BoundedSemaphore",
    "DummySemaphore",
    "RLock",
    "Semaphore",
]
