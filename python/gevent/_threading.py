"""A lock and a queue of native threads, for gevent's own thread pools.

They work the same whether threading has been patched or not.
"""

from collections import deque

from gevent import monkey
from gevent._compat import thread_mod_name

__all__ = [
    "EmptyTimeout",
    "Lock",
    "Queue",
]

start_new_thread, Lock, get_thread_ident = monkey.get_original(
    thread_mod_name, ["start_new_thread", "allocate_lock", "get_ident"]
)


class EmptyTimeout(Exception):
    """No item came to a `Queue` in time."""


class Queue:
    """A queue without a limit, whose getters bring their own lock to wait on, their cookie.

    The getter that came last is woken first, so that threads there is no work for can expire.
    """

    __slots__ = ("_mutex", "_queue", "_waiters", "unfinished_tasks")

    def __init__(self):
        self._mutex = Lock()
        self._queue = deque()
        # The cookies, locked, of the threads that wait.
        self._waiters = []
        self.unfinished_tasks = 0

    def task_done(self):
        """Say that the work for one item is done. `ValueError` if called more often than `put`."""
        with self._mutex:
            if self.unfinished_tasks <= 0:
                raise ValueError(
                    f"task_done() called too many times; {self.unfinished_tasks} remaining tasks"
                )
            self.unfinished_tasks -= 1

    def qsize(self):
        """Return the number of items at this moment."""
        return len(self._queue)

    def empty(self):
        """Return whether there are no items at this moment."""
        return not self._queue

    def full(self):
        """Return false."""
        return False

    def put(self, item):
        """Put *item* into the queue."""
        with self._mutex:
            self._queue.append(item)
            self.unfinished_tasks += 1
            if self._waiters:
                self._waiters.pop().release()

    def get(self, cookie, timeout=-1):
        """Remove an item and return it, waiting for one.

        After *timeout* seconds raise `EmptyTimeout`; -1 is no timeout. *cookie* comes from
        `allocate_cookie` and is the calling thread's alone.
        """
        # Seen by gevent.util, which does not show the stack of a thread that only waits.
        gevent_threadpool_worker_idle = True  # noqa: F841
        mutex = self._mutex
        with mutex:
            while not self._queue:
                cookie.acquire()
                self._waiters.append(cookie)
                mutex.release()
                try:
                    woken = cookie.acquire(timeout=timeout)
                finally:
                    mutex.acquire()
                if not woken:
                    # Unless it was woken after all, before the mutex was acquired.
                    woken = cookie.acquire(False)
                    if not woken:
                        self._waiters.remove(cookie)
                cookie.release()
                if not woken and not self._queue:
                    raise EmptyTimeout
            return self._queue.popleft()

    def allocate_cookie(self):
        """Return a new cookie for `get`."""
        return Lock()

    def kill(self):
        """Drop everything, for the child of a fork, where the locks may be held by nobody."""
        self._queue = None
        self._mutex = None
        self._waiters = None
        self.unfinished_tasks = None
