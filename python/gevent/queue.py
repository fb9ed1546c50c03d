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
from _thread import get_ident
from collections import deque
from heapq import heapify as _heapify
from heapq import heappop as _heappop
from heapq import heappush as _heappush

from greenlet import getcurrent

from gevent._abstract_linkable import call_in
from gevent._hub_local import get_hub_if_exists
from gevent._queue import Exchange, ItemWaiter, Orphan

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

# Under its older place.
_EXPORTED = (ItemWaiter,)


class SimpleQueue(Exchange):
    """A queue of at most *maxsize* items, or any number if it is `None` or not above zero.

    ``len`` is the number of items, but a queue is always true. Greenlets and threads that wait
    are served in the order in which they came.
    """

    __slots__ = ("_maxsize", "is_shutdown", "queue")

    __class_getitem__ = classmethod(types.GenericAlias)

    def __init__(self, maxsize=None, items=(), _warn_depth=2):
        if maxsize == 0:
            import warnings

            warnings.warn(
                "Queue(0) now equivalent to Queue(None); if you want a channel, use Channel",
                DeprecationWarning,
                stacklevel=_warn_depth,
            )
        Exchange.__init__(self)
        self.maxsize = maxsize
        self.is_shutdown = False
        self.queue = None
        # Subclasses written for the standard library define ``_init(self, maxsize)``.
        if items:
            self._init(maxsize, items)
        else:
            self._init(self.maxsize)

    # As in the standard library, a subclass may override _init, _qsize, _put and _get. The last
    # three are called with the lock held.

    def _init(self, maxsize, items=()):
        self.queue = self._create_queue(items)

    def _qsize(self):
        return len(self.queue)

    def _get(self):
        return self.queue.popleft()

    def _put(self, item):
        self.queue.append(item)

    def _create_queue(self, items=()):
        return deque(items)

    def _peek(self):
        return self.queue[0]

    @property
    def maxsize(self):
        """The greatest number of items, or `None` if there is no limit."""
        return self._maxsize if self._maxsize > 0 else None

    @maxsize.setter
    def maxsize(self, nv):
        self._maxsize = -1 if nv is None or nv <= 0 else nv

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
        if getattr(self, "queue", None):
            parts.append(f"queue={self.queue!r}")
        if self.getters:
            parts.append(f"getters[{len(self.getters)}]")
        if self.putters:
            parts.append(f"putters[{len(self.putters)}]")
        return " " + " ".join(parts) if parts else ""

    def qsize(self):
        """Return the number of items."""
        return self._qsize()

    def __len__(self):
        """Return the number of items."""
        return self.qsize()

    def __bool__(self):
        """Return true, even for an empty queue."""
        return True

    def empty(self):
        """Return whether there are no items."""
        return not self.qsize()

    def full(self):
        """Return whether there are as many items as the queue takes."""
        return self._maxsize > 0 and self.qsize() >= self._maxsize

    def _has_room(self):
        return self._maxsize == -1 or self.qsize() < self._maxsize

    def put(self, item, block=True, timeout=None):
        """Put *item* into the queue.

        If the queue is full, wait for room, at most *timeout* seconds, and raise `Full` if there
        is none then or *block* is false. A negative *timeout* is a `ValueError`.
        """
        if self.is_shutdown:
            raise ShutDown
        if self._thread != get_ident():
            self._saw_thread()
        with self._lock:
            if self._has_room():
                if block and timeout is not None and timeout < 0:
                    raise ValueError("'timeout' must be a non-negative number")
                self._put(item)
                done = True
            else:
                done = False
        if done:
            if self.getters:
                self._wake()
        elif self._in_hub():
            self._put_in_hub(item)
        elif block:
            self._wait(self.putters, item, timeout, Full, self._satisfy_putter)
        else:
            raise Full

    def _put_in_hub(self, item):
        """Put *item* after making room by switching to getters, as the hub itself cannot wait."""
        hub = getcurrent()
        while True:
            with self._lock:
                if self._has_room():
                    self._put(item)
                    return
                getter = self._pop_of(hub, self.getters) if self.qsize() else None
            if getter is None:
                raise Full
            self._resume(getter)

    def _satisfy_putter(self, link):
        if not link.took:
            if self.is_shutdown:
                raise ShutDown
            # Those who came before go first.
            first = not self.putters or self.putters[0] is link
            if not (first and self._has_room()):
                return None
            self._put(link.item)
            link.took = True
            if self.getters:
                self._wake()
        return (None,)

    def put_nowait(self, item):
        """Put *item* into the queue, or raise `Full` if there is no room."""
        self.put(item, False)

    def _get_or_peek(self, method, block, timeout):
        if self.is_shutdown:
            raise ShutDown
        if block and timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        if self._in_hub():
            # There may be greenlets whose items can be had without waiting.
            while self.putters:
                with self._lock:
                    putter = self._deliver()
                if putter is None:
                    break
                self._finish(putter)
                with self._lock:
                    if self.qsize():
                        return method()
            raise Empty
        if not block:
            raise Empty

        def satisfied(link):
            if self.qsize():
                return (method(),)
            if self.is_shutdown:
                raise ShutDown
            return None

        return self._wait(self.getters, None, timeout, Empty, satisfied)

    def get(self, block=True, timeout=None):
        """Remove an item from the queue and return it.

        If there is none, wait for one, at most *timeout* seconds, and raise `Empty` if there is
        none then or *block* is false.
        """
        if self._thread != get_ident():
            self._saw_thread()
        with self._lock:
            if self.qsize():
                item = self._get()
                done = True
            else:
                done = False
        if done:
            if self.putters:
                self._wake()
            return item
        item = self._get_or_peek(self._get, block, timeout)
        if self.putters:
            self._wake()
        return item

    def get_nowait(self):
        """Remove an item and return it, or raise `Empty`."""
        return self.get(False)

    def peek(self, block=True, timeout=None):
        """Like `get`, but leave the item in the queue."""
        with self._lock:
            if self.qsize():
                return self._peek()
        return self._get_or_peek(self._peek, block, timeout)

    def peek_nowait(self):
        """Return the next item without removing it, or raise `Empty`."""
        return self.peek(False)

    # Serving those who wait

    @staticmethod
    def _pop_of(hub, waiters):
        """Under the lock: take the first of *waiters* that belongs to *hub* off, and return it."""
        for link in waiters:
            if link.hub is hub and link.lock is None:
                waiters.remove(link)
                return link
        return None

    def _deliver(self):
        """Under the lock: put the first putter's item into the queue if there is room.

        Returns the putter, who is to be woken, or `None`. If the item is refused the putter gets
        the exception.
        """
        if not self.putters or not self._has_room():
            return None
        link = self.putters.popleft()
        try:
            self._put(link.item)
            link.took = True
        except BaseException as ex:
            link.error = ex
        link.item = None
        return link

    def _unlock(self, hub):
        """In *hub*: switch to putters while there is room and to getters while there are items."""
        while True:
            with self._lock:
                putter = self._deliver()
            if putter is not None:
                self._finish(putter)
            with self._lock:
                getter = self._pop_of(hub, self.getters) if self.qsize() else None
            if getter is not None:
                self._resume(getter)
            if putter is getter is None:
                return

    def _wake(self):
        woken, hubs = [], []
        with self._lock:
            here = get_hub_if_exists()
            # As many getters as there are items.
            for link in [link for _, link in zip(range(self.qsize()), self.getters, strict=False)]:
                if link.lock is not None:
                    self.getters.remove(link)
                    woken.append(link)
                elif link.hub.loop is None:
                    self.getters.remove(link)
                elif link.hub not in hubs:
                    hubs.append(link.hub)
            if self.putters and self._has_room():
                head = self.putters[0]
                if here is not None:
                    hubs.append(here)
                elif head.lock is None and head.hub.loop is not None:
                    hubs.append(head.hub)
                else:
                    putter = self._deliver()
                    if putter is not None:
                        woken.append(putter)
        for link in woken:
            self._finish(link)
        for hub in hubs:
            self._schedule_unlock(hub)

    def _took_but_failed(self, waiters, link, ex, timer):
        if ex is timer or isinstance(ex, Full):
            # The item went into the queue at the last moment.
            return (None,)
        raise ex

    def __iter__(self):
        return self

    def __next__(self):
        result = self.get()
        if result is StopIteration:
            raise result
        return result


class Queue(SimpleQueue):
    """A `SimpleQueue` that also counts unfinished tasks, and can be joined and shut down."""

    __slots__ = ("_cond", "unfinished_tasks")

    def __init__(self, maxsize=None, items=(), unfinished_tasks=None):
        """Without *unfinished_tasks*, all *items* count as unfinished."""
        from gevent.event import Event

        SimpleQueue.__init__(self, maxsize, items, _warn_depth=3)
        self.unfinished_tasks = unfinished_tasks or (len(items) if items else 0)
        self._cond = Event()
        if not self.unfinished_tasks:
            self._cond.set()

    def copy(self):
        return type(self)(self.maxsize, self.queue, self.unfinished_tasks)

    def _format(self):
        result = SimpleQueue._format(self)
        if self.unfinished_tasks:
            result += f" tasks={self.unfinished_tasks} _cond={self._cond}"
        return result

    def _put(self, item):
        SimpleQueue._put(self, item)
        self._did_put_task()

    def _did_put_task(self):
        self.unfinished_tasks += 1
        self._cond.clear()

    def task_done(self):
        """Say that the work for one item is done. `ValueError` if called more often than `put`."""
        with self._lock:
            if self.unfinished_tasks <= 0:
                raise ValueError("task_done() called too many times")
            self.unfinished_tasks -= 1
            if not self.unfinished_tasks:
                self._cond.set()

    def join(self, timeout=None):
        """Wait until `task_done` was called for every item, at most *timeout* seconds.

        Returns whether that is so.
        """
        return self._cond.wait(timeout=timeout)

    def shutdown(self, immediate=False):
        """Refuse further items, and raise `ShutDown` in those who wait.

        `get` raises it when the queue is empty. With *immediate*, the items are thrown away and
        count as done.
        """
        with self._lock:
            self.is_shutdown = True
            if immediate:
                self._drain_for_immediate_shutdown()
        self._shut(self.getters, ShutDown)
        self._shut(self.putters, ShutDown)

    def _drain_for_immediate_shutdown(self):
        while self.qsize():
            self._get()
            self.task_done()


#: The older name of `Queue`.
JoinableQueue = Queue


class UnboundQueue(Queue):
    """A `Queue` without a limit, so that `put` never waits."""

    __slots__ = ()

    def __init__(self, maxsize=None, items=()):
        if maxsize is not None:
            raise ValueError("UnboundQueue has no maxsize")
        Queue.__init__(self, maxsize, items)

    def put(self, item, block=True, timeout=None):
        """Put *item* into the queue."""
        if self._thread != get_ident():
            self._saw_thread()
        with self._lock:
            self._put(item)
        if self.getters:
            self._wake()


class PriorityQueue(Queue):
    """A `Queue` that returns the smallest item first.

    Items are often tuples ``(priority, data)``.
    """

    __slots__ = ()

    def _create_queue(self, items=()):
        heap = list(items)
        _heapify(heap)
        return heap

    def _put(self, item):
        _heappush(self.queue, item)
        self._did_put_task()

    def _get(self):
        return _heappop(self.queue)


class LifoQueue(Queue):
    """A `Queue` that returns the newest item first."""

    __slots__ = ()

    def _create_queue(self, items=()):
        return list(items)

    def _put(self, item):
        self.queue.append(item)
        self._did_put_task()

    def _get(self):
        return self.queue.pop()

    def _peek(self):
        return self.queue[-1]


class Channel(Exchange):
    """Hands items from greenlet to greenlet without keeping any: `put` waits for a `get`."""

    __slots__ = ()

    __class_getitem__ = classmethod(types.GenericAlias)

    def __init__(self, maxsize=1):
        """*maxsize* is there so that a channel can be made like a queue; it must be 1."""
        if maxsize != 1:
            raise ValueError("Channels have a maxsize of 1")
        Exchange.__init__(self)

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

    @property
    def balance(self):
        """How many more putters than getters wait."""
        return len(self.putters) - len(self.getters)

    def qsize(self):
        """Return 0."""
        return 0

    def empty(self):
        """Return true."""
        return True

    def full(self):
        """Return true."""
        return True

    def put(self, item, block=True, timeout=None):
        """Wait until somebody takes *item*, at most *timeout* seconds; then raise `Full`."""
        if self._in_hub():
            with self._lock:
                if not self.getters:
                    raise Full
                getter = self.getters.popleft()
                getter.item = item
                getter.took = True
            self._finish(getter)
            return
        self._wait(self.putters, item, timeout if block else 0, Full, self._took)

    def put_nowait(self, item):
        """Hand *item* to a waiting getter or raise `Full`."""
        self.put(item, False)

    def get(self, block=True, timeout=None):
        """Wait until somebody puts an item, at most *timeout* seconds; then raise `Empty`."""
        if self._in_hub():
            with self._lock:
                if not self.putters:
                    raise Empty
                putter = self.putters.popleft()
                putter.took = True
                item = putter.item
            # Not by switching, as the getter's own work in the hub comes first.
            if putter.lock is not None:
                putter.wake()
            elif putter.hub is not None:
                call_in(putter.hub, self._resume, putter)
            return item
        return self._wait(self.getters, None, timeout if block else 0, Empty, self._took)

    def get_nowait(self):
        """Return the item of a waiting putter or raise `Empty`."""
        return self.get(False)

    @staticmethod
    def _took(link):
        return (link.item,) if link.took else None

    def _wait(self, waiters, item, timeout, timeout_error, satisfied):
        result = Exchange._wait(self, waiters, item, timeout, timeout_error, satisfied)
        return result if waiters is self.getters else None

    def _pair(self):
        """Under the lock: give the first putter's item to the first getter; return both."""
        if not (self.putters and self.getters):
            return None
        getter = self.getters.popleft()
        putter = self.putters.popleft()
        getter.item = putter.item
        getter.took = putter.took = True
        return getter, putter

    def _unlock(self, hub):
        while True:
            with self._lock:
                pair = self._pair()
            if pair is None:
                return
            for link in pair:
                self._finish(link)

    def _wake(self):
        hub = get_hub_if_exists()
        if not (self.putters and self.getters):
            return
        if hub is not None:
            self._schedule_unlock(hub)
        else:
            self._unlock(None)

    def _took_but_failed(self, waiters, link, ex, timer):
        if ex is timer or isinstance(ex, (Full, Empty)):
            # The other side came at the last moment.
            return (link.item,)
        if waiters is self.getters:
            # The item must not be lost with its getter: the next one takes it.
            with self._lock:
                self.putters.appendleft(Orphan(link.item))
            self._wake()
        raise ex

    def __iter__(self):
        return self

    def __next__(self):
        result = self.get()
        if result is StopIteration:
            raise result
        return result

    next = __next__
