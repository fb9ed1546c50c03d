"""Groups of greenlets, and pools: groups that limit how many greenlets run at a time.

A greenlet leaves its group when it ends. All greenlets of a group can be joined or killed.
"""

from gevent._core import GroupBase
from gevent._imap import IMap, IMapUnordered
from gevent._util import StandIn
from gevent.event import Event
from gevent.greenlet import Greenlet, joinall
from gevent.hub import GreenletExit, getcurrent
from gevent.hub import kill as _kill
from gevent.lock import DummySemaphore, Semaphore
from gevent.queue import Full as QueueFull
from gevent.timeout import Timeout

__all__ = [
    "Group",
    "Pool",
    "PoolFull",
]


class GroupMappingMixin:
    """``apply``, ``map`` and ``imap`` for groups, pools and thread pools.

    The class it is mixed into defines ``spawn(func, *args, **kwargs)``, whose result has ``get``
    and ``rawlink``, and three answers: ``_apply_immediately()``, whether `apply` is to call
    the function itself; ``_apply_async_use_greenlet()``, whether ``spawn`` would block; and
    ``_apply_async_cb_spawn(callback, result)``, which calls the callback of `apply_async`.
    """

    __slots__ = ()

    def apply(self, func, args=None, kwds=None):
        """Spawn ``func(*args, **kwds)``, wait for it, and return its result or raise its exception.

        If the caller is itself a member of this group, the function is called at once: in a full
        pool it would wait for itself to end.
        """
        args = () if args is None else args
        kwds = {} if kwds is None else kwds
        if self._apply_immediately():
            return func(*args, **kwds)
        return self.spawn(func, *args, **kwds).get()

    def apply_cb(self, func, args=None, kwds=None, callback=None):
        """Like `apply`, and give the result to *callback* as well, unless it is an exception.

        A `Group` calls *callback* in a new greenlet that is not a member, a thread pool calls
        it in the current one.
        """
        result = self.apply(func, args, kwds)
        if callback is not None:
            self._apply_async_cb_spawn(callback, result)
        return result

    def apply_async(self, func, args=None, kwds=None, callback=None):
        """Return a greenlet that does `apply_cb`. This never blocks, even if the group is full.

        The greenlet need not be a member of the group: to wait for it join it, and not the group.
        """
        args = () if args is None else args
        kwds = {} if kwds is None else kwds
        if self._apply_async_use_greenlet():
            return Greenlet.spawn(self.apply_cb, func, args, kwds, callback)
        greenlet = self.spawn(func, *args, **kwds)
        if callback is not None:
            greenlet.link(pass_value(callback))
        return greenlet

    def map(self, func, iterable, maxsize=None):
        """Return a list of ``func(item)`` for each item of *iterable*, calculated concurrently.

        With *maxsize*, at most about that many items are ahead of the slowest one.
        """
        if maxsize:
            return list(self.imap(func, iterable, maxsize=maxsize))
        # In a greenlet, so that a caller who is killed while this spawns leaves the spawning
        # to end by itself, as with the other methods.
        return Greenlet.spawn(self.__map, func, iterable).get()

    def __map(self, func, iterable):
        return [task.get() for task in [self.spawn(func, item) for item in iterable]]

    def map_cb(self, func, iterable, callback=None):
        """Like `map`, and give the list to *callback* as well."""
        result = self.map(func, iterable)
        if callback is not None:
            callback(result)
        return result

    def map_async(self, func, iterable, callback=None):
        """Return a greenlet that does `map_cb`."""
        return Greenlet.spawn(self.map_cb, func, iterable, callback)

    def __imap(self, cls, func, *iterables, **kwargs):
        maxsize = kwargs.pop("maxsize", None)
        if kwargs:
            raise TypeError("Unsupported keyword arguments")
        return cls.spawn(
            func, zip(*iterables, strict=False), spawn=self.spawn, _zipped=True, maxsize=maxsize
        )

    def imap(self, func, *iterables, **kwargs):
        """imap(func, *iterables, maxsize=None) -> iterable

        Return an iterator over ``func(*items)``, where *items* has one item of each iterable.
        The calls are made concurrently, as far as the group has room.

        With *maxsize*, no more calls are made while about that many results have not been read.
        """
        return self.__imap(IMap, func, *iterables, **kwargs)

    def imap_unordered(self, func, *iterables, **kwargs):
        """imap_unordered(func, *iterables, maxsize=None) -> iterable

        Like `imap`, but the results come in the order in which they are ready.
        """
        return self.__imap(IMapUnordered, func, *iterables, **kwargs)


class Group(GroupBase, GroupMappingMixin):
    """A set of greenlets that leave it when they end.

    A group has a length, can be iterated over and asked with ``in``, and is false when empty.
    """

    #: The class of the greenlets that `spawn` makes; a subclass or an instance may change it.
    greenlet_class = Greenlet

    def __init__(self, *args):
        """Takes an iterable of greenlets as its only, optional, argument."""
        assert len(args) <= 1, args
        self.greenlets = set(*args)
        for greenlet in self.greenlets:
            greenlet.rawlink(self._discard)
        self.dying = set()
        self._empty_event = Event()
        self._empty_event.set()

    def __repr__(self):
        return "<%s at 0x%x %s>" % (type(self).__name__, id(self), self.greenlets)

    def __len__(self):
        """Return the number of greenlets."""
        return len(self.greenlets)

    def __contains__(self, item):
        """Return whether the greenlet *item* is a member."""
        return item in self.greenlets

    def __iter__(self):
        """Iterate over the greenlets, in no order."""
        return iter(self.greenlets)

    def discard(self, greenlet):
        """Forget *greenlet*, which goes on running."""
        self._discard(greenlet)
        if hasattr(greenlet, "unlink"):
            greenlet.unlink(self._discard)

    def join(self, timeout=None, raise_error=False):
        """Wait until the group is empty, at most *timeout* seconds, and return whether it was.

        By the time the caller runs there may be members again. With *raise_error*, raise the
        exception of a greenlet that was a member at the beginning and failed.
        """
        greenlets = list(self.greenlets) if raise_error else ()
        result = self._empty_event.wait(timeout=timeout)
        for greenlet in greenlets:
            if greenlet.exception is not None:
                if hasattr(greenlet, "_raise_exception"):
                    greenlet._raise_exception()
                raise greenlet.exception
        return result

    def kill(self, exception=GreenletExit, block=True, timeout=None):
        """Raise *exception* in all members, and in those that join meanwhile.

        If *block*, wait until the group is empty, at most *timeout* seconds.
        """
        timer = Timeout._start_new_or_dummy(timeout)
        try:
            while self.greenlets:
                self._kill_new(exception)
                if not block:
                    break
                joinall(self.greenlets)
        except Timeout as ex:
            if ex is not timer:
                raise
        finally:
            timer.cancel()

    def _kill_new(self, exception):
        for greenlet in self.greenlets - self.dying:
            if hasattr(greenlet, "kill"):
                greenlet.kill(exception, block=False)
            else:
                _kill(greenlet, exception)
            self.dying.add(greenlet)

    def killone(self, greenlet, exception=GreenletExit, block=True, timeout=None):
        """Raise *exception* in *greenlet*, if it is a member that was not yet told to end.

        If *block*, wait until it has ended, at most *timeout* seconds.
        """
        if greenlet not in self.dying and greenlet in self.greenlets:
            greenlet.kill(exception, block=False)
            self.dying.add(greenlet)
            if block:
                greenlet.join(timeout)

    def full(self):
        """Return whether `add` would block: never, for a group."""
        return False

    def wait_available(self, timeout=None):
        """Wait until `add` does not block, which for a group is always so."""

    def _apply_immediately(self):
        return getcurrent() in self

    def _apply_async_cb_spawn(self, callback, result):
        Greenlet.spawn(callback, result)

    def _apply_async_use_greenlet(self):
        return self.full()


class PoolFull(QueueFull):
    """There is no room in a pool, and the caller did not want to wait (any longer)."""


class Pool(Group):
    """A group with at most *size* members."""

    def __init__(self, size=None, greenlet_class=None):
        """Make an empty pool for greenlets of *greenlet_class*, by default `gevent.Greenlet`.

        A *size* of `None` is no limit. With 0 there is never room, and `add` blocks for ever.
        """
        if size is not None and size < 0:
            raise ValueError(f"size must not be negative: {size!r}")
        super().__init__()
        self.size = size
        if greenlet_class is not None:
            self.greenlet_class = greenlet_class
        self._semaphore = DummySemaphore() if size is None else Semaphore(size)

    def wait_available(self, timeout=None):
        """Wait until there is room, at most *timeout* seconds.

        Returns for how many greenlets there is.
        """
        return self._semaphore.wait(timeout=timeout)

    def full(self):
        """Return whether `add` would block."""
        return self.free_count() <= 0

    def free_count(self):
        """Return for how many more greenlets there is room; 1 if there is no limit."""
        return 1 if self.size is None else max(0, self.size - len(self))

    # start() hands these arguments on.
    add = GroupBase._pool_add
    _discard = GroupBase._pool_discard


class pass_value(StandIn):
    """A link that calls *callback* with the value of a greenlet that succeeded."""

    __slots__ = ()

    def __call__(self, source):
        if source.successful():
            self.callback(source.value)
