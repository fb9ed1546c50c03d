"""How a thread ends before Python 3.13: by a lock, ``_tstate_lock``, that the interpreter releases.

The main thread gets one of ours for as long as it runs, so that greenlets can wait for it.
"""

from greenlet import getcurrent

from ._patch_thread_common import BasePatcher
from .api import get_original


class Patcher(BasePatcher):
    def patch_threading(self):
        modules = super().patch_threading()
        # Threads that were made before, and subclasses that were defined before.
        from gevent.threading import link_end_of_thread

        native = get_original("threading", "Thread")
        if not hasattr(native._set_tstate_lock, "_gevent_monkey"):
            link_end_of_thread(native)
        return modules

    def patch_shutdown_on_main_thread(self):
        from .api import patch_item

        main_thread = self.main_thread
        main_greenlet = main_thread._greenlet = getcurrent()
        native_lock = main_thread._gevent_real_tstate_lock = main_thread._tstate_lock
        main_thread._tstate_lock = self.threading_mod.Lock()
        main_thread._tstate_lock.acquire()

        def _shutdown():
            if not main_thread._tstate_lock:
                return
            main_thread._tstate_lock.release()
            self.let_joiners_run(main_greenlet)
            # A greenlet that joined has marked the thread as stopped, which the interpreter
            # is about to do itself, with the lock that it knows.
            main_thread._is_stopped = False
            main_thread._tstate_lock = native_lock
            main_thread._gevent_real_tstate_lock = None
            self.run_shutdown()

        patch_item(self.threading_mod, "_shutdown", _shutdown)
