"""What patching :mod:`threading` takes in every version of Python.

More than new names: the threads, locks and identities that exist already were made by the
native versions and have to fit in. What a thread keeps of its end differs between versions and is
left to :mod:`._patch_thread_lt313` and :mod:`._patch_thread_gte313`.
"""

import sys

from gevent.events import DoNotPatch
from gevent.exceptions import LoopExit

from ._state import is_module_patched, is_object_patched, saved
from ._util import _notify_patch, _patch_module, _queue_warning


def _patch_global_shutdown_lock(threading):
    # concurrent.futures takes this lock before each fork, and while it starts a thread. A greenlet
    # that forks meanwhile would block the one native thread for ever, or switch in mid-fork. The
    # handlers cannot be taken back, but they keep the old lock, which nobody else uses any more.
    import concurrent.futures.thread as module

    if hasattr(module, "_global_shutdown_lock"):
        module._global_shutdown_lock = threading._allocate_lock()


def _patch_existing_locks(threading):
    """Make locks that are held right now releasable by the holder's new identity."""
    if len(threading.enumerate()) != 1:
        # Who holds what cannot be told.
        return
    _patch_global_shutdown_lock(threading)
    # Threads take it as they start and end.
    threading._active_limbo_lock = threading._allocate_lock()

    import gc
    import importlib._bootstrap

    ident = threading.get_ident()
    rlock = type(threading.RLock())
    module_lock = importlib._bootstrap._ModuleLock
    for lock in gc.get_objects():
        # By type, not isinstance: that would ask every lazy proxy in the process to unfold.
        kind = type(lock)
        if kind is rlock and lock._owner is not None:
            lock._owner = ident
        elif kind is module_lock and lock.owner is not None:
            lock.owner = ident


def _patch_existing_executors(threading):
    """Have executors that exist already work with the threads that they will start."""
    module = sys.modules.get("concurrent.futures.thread")
    if module is None:
        return
    import gc

    from gevent.queue import SimpleQueue

    for executor in gc.get_objects():
        # As above, by type.
        if not issubclass(type(executor), module.ThreadPoolExecutor):
            continue
        threads = getattr(executor, "_threads", None)
        if threads is None:
            # Its class has not begun, or does things its own way.
            continue
        if threads:
            # They run natively and wait in a native queue, in which a greenlet must not.
            executor._max_workers = len(threads)
            continue
        executor._work_queue = SimpleQueue()
        executor._shutdown_lock = threading._allocate_lock()
        executor._idle_semaphore = threading.Semaphore(0)


class BasePatcher:
    """One call of :func:`gevent.monkey.patch_thread`."""

    gevent_threading_mod = None
    threading_mod = None
    orig_current_thread = None
    main_thread = None
    orig_shutdown = None
    #: Threads that were made before the patch.
    earlier = ()

    def __init__(
        self,
        threading=True,
        _threading_local=True,
        Event=True,
        logging=True,
        existing_locks=True,
        _warnings=None,
    ):
        self.threading = threading
        self.threading_local = _threading_local
        self.Event = Event
        self.logging = logging
        self.existing_locks = existing_locks
        self.warnings = _warnings

    def __call__(self):
        from gevent import events

        # Imported before anything changes: it copies names out of _thread, and those are the
        # originals that have to be remembered.
        import threading

        self.threading_mod = threading
        self.orig_current_thread = threading.current_thread()
        self.main_thread = threading.main_thread()
        self.orig_shutdown = threading._shutdown
        if self.threading and not is_module_patched("threading"):
            self.earlier = self.find_earlier_threads()

        patched = [
            (
                "thread",
                *_patch_module("thread", _warnings=self.warnings, _notify_did_subscribers=False),
            )
        ]
        if self.threading:
            patched.append(("threading", *self.patch_threading()))
        if self.threading_local:
            self.patch_threading_local()
        if self.threading:
            self.patch_active_threads()
            self.adopt_earlier_threads()

        if not is_object_patched("threading", "_shutdown"):
            if self.orig_current_thread == threading.main_thread():
                self.patch_shutdown_on_main_thread()
                self.adopt_main_thread()
            else:
                self.patch_shutdown_not_on_main_thread()

        for name, source, target in patched:
            _notify_patch(events.GeventDidPatchModuleEvent(name, source, target))

    def patch_threading(self):
        modules = _patch_module("threading", _warnings=self.warnings, _notify_did_subscribers=False)
        if not is_module_patched("threading"):
            if is_module_patched("_thread"):
                self.refuse_half()
            raise DoNotPatch
        if self.Event:
            self.patch_event()
        if self.existing_locks:
            _patch_existing_locks(self.threading_mod)
            _patch_existing_executors(self.threading_mod)
        if self.logging and "logging" in sys.modules:
            self.patch_logging()
        return modules

    def refuse_half(self):
        """A subscriber has objected to threading: undo _thread, and say that it is one or none."""
        import _thread

        for name, original in saved.pop("_thread", {}).items():
            setattr(_thread, name, original)
        raise RuntimeError(
            "A subscriber to gevent's patch events objects to patching threading, but not to "
            "_thread. Native locks in greenlets would block for ever: it has to object to _thread "
            "as well."
        )

    def patch_event(self):
        from gevent.event import Event

        from .api import patch_item

        patch_item(self.threading_mod, "Event", Event)

    def patch_logging(self):
        """Whatever was configured before got native locks."""
        import logging

        from .api import patch_item

        RLock = self.threading_mod.RLock
        patch_item(logging, "_lock", RLock())
        for ref in logging._handlerList:
            handler = ref() if callable(ref) else ref
            if handler is None:
                continue
            if not hasattr(handler, "lock"):
                raise TypeError("Unknown/unsupported handler %r" % handler)
            handler.lock = RLock()

    def patch_threading_local(self):
        import _threading_local

        from gevent.local import local

        from .api import patch_item

        patch_item(_threading_local, "local", local)

    def patch_active_threads(self):
        """Make the threads that run already joinable without blocking, and able to end."""
        from functools import partial

        for thread in list(self.threading_mod._active.values()):
            if thread is self.threading_mod.main_thread():
                self.patch_active_main_thread(thread)
            else:
                thread.join = self._make_existing_non_main_thread_join_func(
                    thread, None, self.threading_mod
                )
                # From its native identity it was to be found, and it has that no more.
                thread._delete = partial(self.threading_mod._active.pop, thread.ident, None)

    def find_earlier_threads(self):
        """Threads that have been made but not started, and those that run."""
        threading = self.threading_mod
        own = (self.main_thread, self.orig_current_thread)
        made = [thread for thread in threading._dangling if thread not in own]
        return [thread for thread in made if thread.ident is None or thread.is_alive()]

    def adopt_earlier_threads(self):
        """Have those that will be started end as greenlets do, and say which there are."""
        if not self.earlier:
            return
        for thread in self.earlier:
            if thread.ident is None:
                self.adopt_unstarted_thread(thread)
        names = sorted(
            "%s (%s)" % (thread.name, "not started" if thread.ident is None else "running")
            for thread in self.earlier
        )
        _queue_warning(
            "Monkey-patching threading after threads have been made: %s. Those that run stay "
            "native, and block or are blocked by what is not patched; those that are not started "
            "will be greenlets. Please monkey-patch earlier." % ", ".join(names),
            self.warnings,
        )

    def adopt_unstarted_thread(self, thread):
        """Versions differ."""

    def patch_active_main_thread(self, thread):
        """Versions differ."""

    def patch_shutdown_on_main_thread(self):
        """Versions differ: have the end of the main thread wake greenlets that join it."""
        raise NotImplementedError  # abstract

    def run_shutdown(self):
        """The interpreter's own end of threading, and nothing of ours after it."""
        from .api import patch_item

        try:
            self.orig_shutdown()
        except LoopExit:
            pass
        patch_item(self.threading_mod, "_shutdown", self.orig_shutdown)

    @staticmethod
    def let_joiners_run(greenlet):
        """From the main greenlet at its very end: what others throw at it has nowhere to go."""
        from gevent import get_hub, sleep

        try:
            sleep()
        except BaseException:
            get_hub().print_exception(greenlet, *sys.exc_info())

    def adopt_main_thread(self):
        """Have the main thread answer to the identity that its main greenlet has now."""
        threading, main = self.threading_mod, self.main_thread
        # Our changes put it in a cycle; it is not a leak.
        threading._dangling.discard(main)
        old = main.ident
        main._ident = threading.get_ident()
        if old in threading._active and old != main.ident:
            threading._active[main.ident] = threading._active.pop(old)

    def patch_shutdown_not_on_main_thread(self):
        from .api import patch_item

        _queue_warning(
            "Monkey-patching not on the main thread; "
            "threading.main_thread().join() will hang from a greenlet",
            self.warnings,
        )
        main_thread = self.main_thread
        get_ident = self.threading_mod.get_ident

        def _shutdown():
            # Only a thread that goes by the current identity is ended, and this one still has the
            # native one.
            main_thread._ident = get_ident()
            self.run_shutdown()

        patch_item(self.threading_mod, "_shutdown", _shutdown)

    @staticmethod
    def _make_existing_non_main_thread_join_func(thread, thread_greenlet, threading_mod):
        """A ``join`` for *thread*, which runs natively and so can only be asked, not waited for."""
        from time import monotonic

        from gevent.hub import sleep

        def join(timeout=None):
            if threading_mod.current_thread() is thread:
                raise RuntimeError("Cannot join current thread")
            if thread_greenlet is not None and thread_greenlet.dead:
                return
            end = monotonic() + timeout if timeout else None
            while thread.is_alive():
                if end is not None and monotonic() > end:
                    return
                sleep(0.01)

        return join
