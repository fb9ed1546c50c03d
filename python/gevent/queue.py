"""Queues between greenlets and threads, with the methods of the standard library's `queue`.

Iterating over a queue gets items until one of them is ``StopIteration``::

    >>> import gevent.queue
    >>> queue = gevent.queue.Queue()
    >>> queue.put(1)
    >>> queue.put(2)
    >>> queue.put(StopIteration)
    >>> for item in queue:
    ...    print(item)
    1
    2

All methods may be called from any native thread, with a hub or without. Nothing that need not wait
switches or creates a hub.
"""

import queue as __queue__
import types
from collections import deque
from heapq import heapify as _heapify

from gevent._core import ChannelBase, QueueBase
from gevent._waiter import Waiter

__implements__ = ["LifoQueue", "PriorityQueue", "Queue", "SimpleQueue"]
__extensions__ = ["Channel", "JoinableQueue"]
__imports__ = ["Empty", "Full"]

_Full = Full = __queue__.Full
_Empty = Empty = __queue__.Empty

if hasattr(__queue__, "ShutDown"):
    ShutDown = __queue__.ShutDown
    __imports__.append("ShutDown")
else:

    class ShutDown(Exception):
        """Raised by queues that were shut down; part of the standard library from Python 3.13."""

    __extensions__.append("ShutDown")

__all__ = list(__implements__ + __extensions__ + __imports__)


class ItemWaiter(Waiter):
    """A `Waiter` with an item to put into a queue.

    It is here for code that makes its own queues of it; those who wait for ours are native.
    """

    __slots__ = ("item", "queue")

    def __init__(self, item, queue):
        super().__init__()
        self.item = item
        self.queue = queue

    def put_and_switch(self):
        """In the hub: put the item, and go on with who waits, who gets this object."""
        self.queue._put(self.item)
        self.queue = self.item = None
        return self.switch(self)


class SimpleQueue(QueueBase):
    """A queue of at most *maxsize* items, or any number if it is `None` or not above zero.

    ``len`` is the number of items, but a queue is always true. Greenlets and threads that wait
    are served in the order in which they came.
    """

    __slots__ = ()

    #: For the native part: 0 is the order of putting, 1 the newest first, 2 the smallest first.
    _order = 0
    #: For the native part: whether `_put` counts tasks.
    _counts_tasks = 0

    __class_getitem__ = classmethod(types.GenericAlias)

    def __init__(self, maxsize=None, items=(), _warn_depth=2):
        if maxsize == 0:
            import warnings

            warnings.warn(
                "Queue(0) now equivalent to Queue(None); if you want a channel, use Channel",
                DeprecationWarning,
                stacklevel=_warn_depth,
            )
        self.maxsize = maxsize
        self.is_shutdown = False
        self.queue = None
        # Subclasses written for the standard library define ``_init(self, maxsize)``.
        if items:
            self._init(maxsize, items)
        else:
            self._init(self.maxsize)

    # As in the standard library, a subclass may override _init, _qsize, _put and _get. The last
    # three are called with a lock held.

    def _init(self, maxsize, items=()):
        self.queue = self._create_queue(items)

    def _create_queue(self, items=()):
        return deque(items)

    def copy(self):
        """Return a new queue with the same items."""
        return type(self)(self.maxsize, self.queue)

    def __repr__(self):
        return "<%s at %s%s>" % (type(self).__name__, hex(id(self)), self._format())

    def __str__(self):
        return "<%s%s>" % (type(self).__name__, self._format())

    def _format(self):
        parts = []
        if self.maxsize is not None:
            parts.append(f"maxsize={self.maxsize!r}")
        if self.queue:
            parts.append(f"queue={self.queue!r}")
        if self.getters:
            parts.append(f"getters[{len(self.getters)}]")
        if self.putters:
            parts.append(f"putters[{len(self.putters)}]")
        return " " + " ".join(parts) if parts else ""

    def put_nowait(self, item):
        """Put *item* into the queue, or raise `Full` if there is no room."""
        self.put(item, False)

    def get_nowait(self):
        """Remove an item and return it, or raise `Empty`."""
        return self.get(False)

    def peek_nowait(self):
        """Return the next item without removing it, or raise `Empty`."""
        return self.peek(False)

    def __iter__(self):
        return self

    def __next__(self):
        result = self.get()
        if result is StopIteration:
            raise result
        return result


class Queue(SimpleQueue):
    """A `SimpleQueue` that also counts unfinished tasks, and can be joined and shut down."""

    __slots__ = ()

    _counts_tasks = 1

    def __init__(self, maxsize=None, items=(), unfinished_tasks=None):
        """Without *unfinished_tasks*, all *items* count as unfinished."""
        super().__init__(maxsize, items, _warn_depth=3)
        self._start_tasks(unfinished_tasks or (len(items) if items else 0))

    #: How many tasks are not done.
    unfinished_tasks = QueueBase._unfinished
    _cond = QueueBase._cond_event
    task_done = QueueBase._task_done
    join = QueueBase._join

    def copy(self):
        """Return a new queue with the same items and as many unfinished tasks."""
        return type(self)(self.maxsize, self.queue, self.unfinished_tasks)

    def _format(self):
        result = super()._format()
        if self.unfinished_tasks:
            result += f" tasks={self.unfinished_tasks} _cond={self._cond}"
        return result

    def shutdown(self, immediate=False):
        """Refuse further items, and raise `ShutDown` in those who wait.

        `get` raises it when the queue is empty. With *immediate*, the items are thrown away and
        count as done.
        """
        self.is_shutdown = True
        if immediate:
            self._drain_for_immediate_shutdown()
        self._shut_waiters()

    def _drain_for_immediate_shutdown(self):
        while self.qsize():
            try:
                self._get()
            except IndexError:
                break  # Another thread was faster.
            self.task_done()


#: The older name of `Queue`.
JoinableQueue = Queue


class UnboundQueue(Queue):
    """A `Queue` without a limit, so that `put` never waits."""

    __slots__ = ()

    def __init__(self, maxsize=None, items=()):
        if maxsize is not None:
            raise ValueError("UnboundQueue has no maxsize")
        super().__init__(maxsize, items)


class PriorityQueue(Queue):
    """A `Queue` that returns the smallest item first.

    Items are often tuples ``(priority, data)``.
    """

    __slots__ = ()

    _order = 2

    def _create_queue(self, items=()):
        heap = list(items)
        _heapify(heap)
        return heap


class LifoQueue(Queue):
    """A `Queue` that returns the newest item first."""

    __slots__ = ()

    _order = 1

    def _create_queue(self, items=()):
        return list(items)


class Channel(ChannelBase):
    """Hands items from greenlet to greenlet without keeping any: `put` waits for a `get`."""

    __slots__ = ()

    __class_getitem__ = classmethod(types.GenericAlias)

    def __init__(self, maxsize=1):
        """*maxsize* is there so that a channel can be made like a queue; it must be 1."""
        if maxsize != 1:
            raise ValueError("Channels have a maxsize of 1")

    def __repr__(self):
        return "<%s at %s %s>" % (type(self).__name__, hex(id(self)), self._format())

    def __str__(self):
        return "<%s %s>" % (type(self).__name__, self._format())

    def _format(self):
        result = ""
        if self.getters:
            result += f" getters[{len(self.getters)}]"
        if self.putters:
            result += f" putters[{len(self.putters)}]"
        return result

    def __iter__(self):
        return self
