"""Waiting for objects, watchers and descriptors, on top of the hub."""

from traceback import print_exc

from greenlet import getcurrent

from gevent import _core
from gevent._core import Hub as SwitchOutGreenletWithLoop
from gevent._hub_local import get_hub_noargs as get_hub
from gevent._util import _NONE
from gevent._waiter import MultipleWaiter, Waiter
from gevent.exceptions import ConcurrentObjectUseError, InvalidSwitchError
from gevent.timeout import Timeout

__all__ = [
    "WaitOperationsGreenlet",
    "iwait_on_objects",
    "wait_on_objects",
    "wait_read",
    "wait_readwrite",
    "wait_write",
]


class WaitOperationsGreenlet(SwitchOutGreenletWithLoop):
    """A hub's greenlet with the ways to wait for watchers."""

    def wait(self, watcher):
        """Block until *watcher*, which must not be started, fires."""
        waiter = Waiter(self)
        watcher.start(waiter.switch, waiter)
        try:
            result = waiter.get()
            if result is not waiter:
                raise InvalidSwitchError(
                    f"Invalid switch into {getcurrent()}: got {result!r} "
                    f"(expected {waiter!r}; waiting on {self!r} with {watcher!r})"
                )
        finally:
            watcher.stop()

    def cancel_waits_close_and_then(self, watchers, exc_kind, then, *then_args):
        """Raise *exc_kind* where *watchers* are waited for, close them, and call *then*."""
        waited_for = []
        for watcher in watchers:
            if watcher is None:
                continue
            if watcher.callback is None:
                watcher.close()
            else:
                waited_for.append(watcher)
        if waited_for:
            self.loop.run_callback(self._cancel_waits_then, waited_for, exc_kind, then, then_args)
        else:
            then(*then_args)

    def _cancel_waits_then(self, watchers, exc_kind, then, then_args):
        for watcher in watchers:
            self._cancel_wait(watcher, exc_kind, True)
        then(*then_args)

    def cancel_wait(self, watcher, error, close_watcher=False):
        """Raise *error* where *watcher* (which may be None) is waited for."""
        if watcher is None:
            return
        if watcher.callback is not None:
            self.loop.run_callback(self._cancel_wait, watcher, error, close_watcher)
        elif close_watcher:
            watcher.close()

    def _cancel_wait(self, watcher, error, close_watcher):
        # In the hub. The wait may have ended meanwhile.
        active = watcher.active
        callback = watcher.callback
        if close_watcher:
            watcher.close()
        if active:
            waiter = getattr(callback, "__self__", None)
            if waiter is not None:
                waiter.throw(error)


class _WaitIterator:
    """Yields objects in the order in which they become ready. See `iwait_on_objects`."""

    def __init__(self, objects, hub, timeout, count):
        self._hub = hub
        self._waiter = MultipleWaiter(hub)
        # One bound method: unlinking must find the very object that was linked.
        self._switch = self._waiter.switch
        self._timeout = timeout
        self._objects = objects
        self._timer = None
        self._begun = False
        self._count = len(objects) if count is None else min(count, len(objects))

    def _begin(self):
        if self._begun:
            return
        self._begun = True
        # All of them, even for a count of one: any may be the first.
        for obj in self._objects:
            obj.rawlink(self._switch)
        if self._timeout is not None:
            self._timer = self._hub.loop.timer(self._timeout, priority=-1)
            self._timer.start(self._switch, self)

    def __iter__(self):
        return self

    def __next__(self):
        self._begin()
        if self._count == 0:
            self._cleanup()
            raise StopIteration
        self._count -= 1
        try:
            item = self._waiter.get()
        except BaseException:
            self._cleanup()
            raise
        self._waiter.clear()
        if item is self:
            # Switched to by the timer.
            self._cleanup()
            raise StopIteration
        return item

    next = __next__

    def _cleanup(self):
        if self._timer is not None:
            self._timer.close()
            self._timer = None
        objects, self._objects = self._objects, ()
        for obj in objects:
            unlink = getattr(obj, "unlink", None)
            if unlink is None:
                continue
            try:
                unlink(self._switch)
            except:  # noqa: E722 (one object must not keep the others linked)
                print_exc()

    def __enter__(self):
        return self

    def __exit__(self, typ, value, tb):
        self._cleanup()


def iwait_on_objects(objects, timeout=None, count=None):
    """Return an iterator over *objects* in the order in which they become ready.

    It ends after all of them, after *count* of them, or when *timeout* seconds have passed since
    the iteration began. *objects* is a sequence of objects with ``rawlink`` and ``unlink``.

    The iterator is a context manager; use it as one if you may not exhaust it, so that the
    links to the remaining objects are removed::

        with gevent.iwait((a, b, c)) as ready:
            for obj in ready:
                if obj is a:
                    break
    """
    hub = get_hub()
    if objects is None:
        return [hub.join(timeout=timeout)]
    return _WaitIterator(objects, hub, timeout, count)


def wait_on_objects(objects=None, timeout=None, count=None):
    """Wait until *objects* are ready and return those that are, in the order they became so.

    With *count*, wait for that many of them. With *timeout*, wait at most so many seconds.

    Objects are greenlets, events, semaphores and everything else with ``rawlink`` and ``unlink``.
    Without any, wait until the event loop has nothing left to do (all greenlets are finished, all
    servers and watchers stopped), and return whether that was reached in time.
    """
    if objects is None:
        return get_hub().join(timeout=timeout)
    done = _core.wait_greenlets(objects, timeout, count)
    if done is not NotImplemented:
        return done
    return list(iwait_on_objects(objects, timeout, count))


_timeout_error = Exception


def set_default_timeout_error(e):
    """Make *e* the class of the error for a wait that timed out and has no other error given."""
    global _timeout_error
    _timeout_error = e


def _primitive_wait(watcher, timeout, timeout_exc, hub):
    if watcher.callback is not None:
        raise ConcurrentObjectUseError(
            f"This socket is already used by another greenlet: {watcher.callback!r}"
        )
    if hub is None:
        hub = get_hub()
    if timeout is None:
        hub.wait(watcher)
        return
    if timeout_exc is _NONE:
        timeout_exc = _timeout_error("timed out")
    with Timeout._start_new_or_dummy(timeout, timeout_exc):
        hub.wait(watcher)


def wait_on_socket(socket, watcher, timeout_exc=None):
    """Wait for *watcher* with the timeout and the hub of *socket*; usable as its method."""
    if socket is None or watcher is None:
        raise ConcurrentObjectUseError("The socket has already been closed by another greenlet")
    _primitive_wait(
        watcher, socket.timeout, _NONE if timeout_exc is None else timeout_exc, socket.hub
    )


def wait_on_watcher(watcher, timeout=None, timeout_exc=_NONE, hub=None):
    """Wait until *watcher*, which must not be started, fires.

    After *timeout* seconds raise *timeout_exc*, which is what `gevent.Timeout` takes as its
    exception, by default a `TimeoutError` as the socket module has it. If another greenlet calls
    ``cancel_wait`` on the watcher, that call's error is raised here.

    Raises `gevent.hub.ConcurrentObjectUseError` if the watcher is started.
    """
    _primitive_wait(watcher, timeout, timeout_exc, hub)


def _wait_fileno(fileno, events, timeout, timeout_exc):
    hub = get_hub()
    watcher = hub.loop.io(fileno, events)
    try:
        _primitive_wait(watcher, timeout, timeout_exc, hub)
    finally:
        watcher.close()


def wait_read(fileno, timeout=None, timeout_exc=_NONE):
    """Wait until the descriptor *fileno* can be read; see `wait_on_watcher` for the rest."""
    _wait_fileno(fileno, 1, timeout, timeout_exc)


def wait_write(fileno, timeout=None, timeout_exc=_NONE, event=_NONE):
    """Wait until *fileno* can be written; *event* is ignored. See `wait_on_watcher`."""
    _wait_fileno(fileno, 2, timeout, timeout_exc)


def wait_readwrite(fileno, timeout=None, timeout_exc=_NONE, event=_NONE):
    """Wait until *fileno* can be read or written; *event* is ignored. See `wait_on_watcher`."""
    _wait_fileno(fileno, 3, timeout, timeout_exc)
