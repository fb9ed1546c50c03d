"""`Semaphore` and `BoundedSemaphore`. Import them from `gevent.lock`."""

from gevent._core import BoundedSemaphore, Semaphore

__all__ = [
    "BoundedSemaphore",
    "Semaphore",
]
