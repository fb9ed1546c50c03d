"""The functions of `_thread`, with greenlets for threads. It is meant for `gevent.monkey`."""

import _thread as __thread__
import sys
from time import monotonic
from weakref import ref

from gevent import _core
from gevent._core import LockType
from gevent._hub_local import get_hub_if_exists
from gevent._util import copy_globals
from gevent.greenlet import Greenlet
from gevent.hub import GreenletExit, getcurrent, sleep
from gevent.local import local as _local

__target__ = "_thread"

__implements__ = [
    "LockType",
    "_local",
    "allocate_lock",
    "exit",
    "get_ident",
    "stack_size",
    "start_new_thread",
]
if sys.version_info[:2] >= (3, 13):
    __implements__ += ["_ThreadHandle", "_make_thread_handle", "lock", "start_joinable_thread"]

__imports__ = [
    "RLock",
    "TIMEOUT_MAX",
    "allocate",
    "daemon_threads_allowed",
    "error",
    "exit_thread",
    "get_native_id",
    "interrupt_main",
    "set_name",
    "start_new",
]

error = __thread__.error


def get_ident(gr=None):
    """Return the identifier of the greenlet *gr*, by default the current one."""
    if gr is None:
        try:
            gr = getcurrent()
        except RuntimeError:
            # So late in the interpreter's shutdown that there are no greenlets any more. The answer
            # must only be no other greenlet's.
            gr = None
    return id(gr)


def _start_new_greenlet(function, args=(), kwargs=None):
    if not _core.has_stack():
        # As where the system gives no thread: `threading` waits for one that has begun.
        raise error("can't start new thread")
    return Greenlet.spawn(function, *args, **({} if kwargs is None else kwargs))


def start_new_thread(function, args=(), kwargs=None):
    """Spawn a greenlet and return its identifier."""
    return get_ident(_start_new_greenlet(function, args, kwargs))


def start_joinable_thread(function, handle=None, daemon=True):
    """Spawn a greenlet and return a handle to join it with, which is *handle* if that is given.

    For `threading` in Python 3.13 and later. *daemon* makes no difference.
    """
    if handle is None:
        handle = _ThreadHandle()
    elif not isinstance(handle, _ThreadHandle):
        raise AssertionError("Must be a gevent thread handle")
    elif handle._had_greenlet:
        raise RuntimeError("thread already started")
    handle._set_greenlet(_start_new_greenlet(function))
    return handle


class _ThreadHandle:
    """What `threading` in Python 3.13 and later keeps of a thread. Accepts any arguments."""

    # A weak reference, because threads are also cleaned up when their greenlet is collected.
    _greenlet_ref = None
    _had_greenlet = False

    def __init__(self, *_args, **_kwargs):
        pass

    def _set_greenlet(self, glet):
        assert glet is not None
        self._greenlet_ref = ref(glet)
        self._had_greenlet = True

    def _get_greenlet(self):
        return None if self._greenlet_ref is None else self._greenlet_ref()

    def join(self, timeout=-1):
        """Wait until the greenlet has ended, at most *timeout* seconds unless that is -1."""
        if not self._had_greenlet:
            raise RuntimeError("thread not started")
        glet = self._get_greenlet()
        if glet is None:
            return
        if glet is getcurrent():
            raise RuntimeError("Cannot join current thread")
        if timeout == -1:
            timeout = None
        if hasattr(glet, "join"):
            glet.join(timeout)
            return
        # A raw greenlet, such as the main one, tells nobody when it ends.
        deadline = monotonic() + timeout if timeout else None
        while not self.is_done():
            if deadline is not None and monotonic() > deadline:
                return
            sleep(0.001)

    @property
    def ident(self):
        """The identifier of the greenlet, or `None` if it is gone."""
        glet = self._get_greenlet()
        return None if glet is None else get_ident(glet)

    def is_done(self):
        """Return whether the greenlet has ended."""
        glet = self._get_greenlet()
        return glet is None or glet.dead

    def _set_done(self, enter_hub=True):
        """Count as ended from now on, and unless *enter_hub* is false let those who wait run."""
        if not self._had_greenlet:
            raise RuntimeError("thread not started")
        self._greenlet_ref = None
        if enter_hub:
            sleep(0.001)

    def __repr__(self):
        return "<%s.%s at 0x%x greenlet=%r>" % (
            type(self).__module__,
            type(self).__name__,
            id(self),
            self._get_greenlet(),
        )


def _make_thread_handle(*_args):
    """Return a handle for the current greenlet. Python 3.13 asks for it in the child of a fork."""
    handle = _ThreadHandle()
    handle._set_greenlet(getcurrent())
    return handle


LockType._OVER_RELEASE_ERROR = __thread__.error
LockType._TIMEOUT_MAX = __thread__.TIMEOUT_MAX


def _let_others_run():
    """Yield after a lock was found taken, or a loop that goes on trying would never get it.

    Not in the hub, which may only be printing a thread, and not where there is no hub: a native
    thread and a finalizer must be able to try a lock without creating one.
    """
    hub = get_hub_if_exists()
    if hub is not None and getcurrent() is not hub:
        sleep()


allocate_lock = lock = LockType


def exit():
    """End the current greenlet."""
    raise GreenletExit


_original_stack_size = __thread__.stack_size


def stack_size(size=None):
    """Return the stack size of new native threads, after increasing it to *size* if it is given.

    It is never decreased, because greenlets may be running in those threads.
    """
    if size is None:
        return _original_stack_size()
    if size > _original_stack_size():
        return _original_stack_size(size)
    if size == 0:
        return 0
    if size < 32_768:
        raise ValueError(size)
    return None


__imports__ = copy_globals(__thread__, globals(), only_names=__imports__, ignore_missing_names=True)

__all__ = [name for name in __implements__ + __imports__ if name != "_local"]

# Names that gevent.threading and others take from here.
_EXPORTED = (_local,)
