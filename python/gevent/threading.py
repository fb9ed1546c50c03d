"""The parts of `threading` that `gevent.monkey` replaces. They are greenlets' threads and locks.

Only for monkey-patching: importing this changes nothing in the standard library's module.
"""

import os
import sys
import threading as __threading__
from weakref import ref

from gevent._util import LazyOnClass
from gevent.hub import getcurrent
from gevent.hub import sleep as _sleep
from gevent.local import local
from gevent.lock import RLock
from gevent.thread import (
    _make_thread_handle,
    _ThreadHandle,
    get_ident,
    start_joinable_thread,
)
from gevent.thread import allocate_lock as _allocate_lock
from gevent.thread import start_new_thread as _start_new_thread

PY313 = sys.version_info[:2] >= (3, 13)

__implements__ = [
    "Lock",
    "Thread",
    "Timer",
    "_CRLock",
    "_DummyThread",
    "_allocate_lock",
    "get_ident",
    "local",
]
__extensions__ = []
if PY313:
    __implements__ += ["_ThreadHandle", "_make_thread_handle", "_start_joinable_thread"]
    __extensions__ += ["_set_sentinel"]
else:
    __implements__ += ["_set_sentinel", "_start_new_thread"]

_DummyThread_ = __threading__._DummyThread
_MainThread_ = __threading__._MainThread

# RLock is not among what is patched: with _CRLock missing, threading makes its own one of the
# patched locks.
_CRLock = None
Lock = allocate_lock = _set_sentinel = _allocate_lock
_get_ident = get_ident
_start_joinable_thread = start_joinable_thread
start_new_thread = _start_new_thread
_EXPORTED = (LazyOnClass, RLock, _ThreadHandle, _sleep, local)


def _cleanup(g):
    __threading__._active.pop(get_ident(g), None)


def _make_cleanup_id(gid):
    return lambda _: __threading__._active.pop(gid, None)


class _DummyThread(_DummyThread_):
    """What `threading.current_thread` makes of a greenlet that it does not know.

    One is made for each greenlet that logs something, so this must be cheap: the constructor of
    the base class is not called, and what it would set to the same values each time, among them
    locks, is in the class. It leaves the list of active threads when the greenlet ends.
    """

    _is_stopped = _stopped = False
    _initialized = True
    _daemonic = True
    _args = ()
    _kwargs = None
    _target = None
    _ident = None
    _started = __threading__.Event()
    _started.set()
    _tstate_lock = None

    def __init__(self):
        # With the same name as the original, which programs look for.
        self._name = __threading__._newname("Dummy-%d")
        self._set_ident()
        self.__ghandle = _make_thread_handle(self._ident)
        if hasattr(__threading__, "get_native_id"):
            self._native_id = __threading__.get_native_id()
        g = getcurrent()
        gid = get_ident(g)
        __threading__._active[gid] = self
        if hasattr(g, "rawlink"):
            g.rawlink(_cleanup)
        else:
            self.__raw_ref = ref(g, _make_cleanup_id(gid))

    def _get_ghandle(self):
        return self.__ghandle

    def _set_ghandle(self, handle):
        self.__ghandle = handle

    def _del_ghandle(self):
        del self.__ghandle

    # 3.13 and 3.14 have different names for the handle, and older versions have none.
    _G_HANDLE_NAME = None
    for _name_in_stdlib in ("_handle", "_os_thread_handle"):
        if hasattr(__threading__.main_thread(), _name_in_stdlib):
            _G_HANDLE_NAME = _name_in_stdlib
            locals()[_name_in_stdlib] = property(_get_ghandle, _set_ghandle, _del_ghandle)
            break
    del _name_in_stdlib

    def _stop(self):
        """Do nothing: there are no locks to release."""

    def _wait_for_tstate_lock(self, *args, **kwargs):
        """Do nothing: there is no such lock."""

    # After a fork the standard library (3.11.8, 3.12.2 and later) makes the current dummy thread
    # the main thread, by assigning to its class. This one has not the attributes for that. It
    # stays what it is, and _ForkHooks makes a new main thread.
    _NEEDS_CLASS_FORK_FIXUP = (3, 11, 8) <= sys.version_info[:3] < (3, 12) or sys.version_info[
        :3
    ] >= (3, 12, 2)

    if _NEEDS_CLASS_FORK_FIXUP:

        @property
        def __class__(self):
            return type(self)

        @__class__.setter
        def __class__(self, new_class):
            if new_class is not _MainThread_:
                object.__dict__["__class__"].__set__(self, new_class)


def main_native_thread():
    """Return the thread object of the main native thread."""
    return __threading__.main_thread()


class Thread(__threading__.Thread):
    """A thread whose end is noticed though it is only a greenlet that ends."""


def link_end_of_thread(cls):
    """Have threads of *cls*, before 3.13, end with their greenlets.

    There the interpreter releases a lock, ``_tstate_lock``, when a native thread ends.
    """
    set_lock = cls._set_tstate_lock

    def _set_tstate_lock(self):
        def finished(_):
            if self._tstate_lock:
                self._tstate_lock.release()
                self._stop()

        set_lock(self)
        # The main greenlet, and so a thread that runs natively, has no such method. The main
        # thread of a forked child may be another greenlet; its end is that of the process.
        rawlink = getattr(getcurrent(), "rawlink", None)
        if rawlink is not None and not isinstance(self, _MainThread_):
            rawlink(finished)

    _set_tstate_lock._gevent_monkey = True
    cls._set_tstate_lock = _set_tstate_lock


if not PY313:
    link_end_of_thread(Thread)


class Timer(Thread, __threading__.Timer):
    """A `threading.Timer` that is a `Thread` of this module."""


class _ForkHooks:
    """Repairs, in the child of a fork, what `threading` did to its threads."""

    _before_fork_current_thread = None
    _before_fork_active = None
    _before_fork_ident = None

    def before_fork_in_parent(self):
        self._before_fork_active = dict(__threading__._active)
        self._before_fork_current_thread = __threading__.current_thread()
        self._before_fork_ident = get_ident()

    def _stop_running_greenlets_in_child(self):
        """Mark the threads of all other greenlets as done.

        The greenlets themselves are not killed: that would run code of theirs.
        """
        name = _DummyThread._G_HANDLE_NAME
        if name is None:
            # Older versions have just done this themselves.
            return
        current = get_ident()
        for ident, thread in self._before_fork_active.items():
            if ident != current:
                handle = getattr(thread, "_DummyThread__ghandle", None)
                if handle is None:
                    handle = getattr(thread, name)
                handle._set_done(enter_hub=False)

    def after_fork_in_child(self):
        threading = __threading__
        assert len(threading._active) == 1
        assert threading.current_thread() is self._before_fork_current_thread
        assert get_ident() == self._before_fork_ident
        self._stop_running_greenlets_in_child()
        main = threading._MainThread()
        # Under the native identity of the main thread, since 3.13.
        threading._active.pop(main._ident, None)
        main._ident = get_ident()
        threading._active[threading.get_ident()] = main
        threading._main_thread = main
        assert threading.main_thread().ident == threading.get_ident()


_fork_hooks = _ForkHooks()


def _gevent_will_monkey_patch(native_module, items, warn):
    """Called by `gevent.monkey` before it patches, unless somebody objects."""
    if __threading__.current_thread() != main_native_thread():
        warn(
            "Monkey-patching outside the main native thread. Some APIs "
            "will not be available. Expect a KeyError to be printed at shutdown."
        )


def _gevent_do_monkey_patch(patch_request):
    """Called by `gevent.monkey` to patch."""
    _adopt_main_thread()
    patch_request.default_patch_items()


def _adopt_main_thread():
    """Make the main thread the main greenlet's."""
    main = main_native_thread()
    if __threading__.current_thread() != main:
        return
    active = __threading__._active
    if get_ident() not in active:
        del active[main.ident]
        main._ident = get_ident()
        active[get_ident()] = main
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=_fork_hooks.before_fork_in_parent,
            after_in_child=_fork_hooks.after_fork_in_child,
        )
