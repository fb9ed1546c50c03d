"""How a thread ends since Python 3.13: by a native handle that knows when it is done.

The main thread gets one of ours for as long as it runs, so that greenlets can wait for it.
"""

from greenlet import getcurrent

from ._patch_thread_common import BasePatcher


def _handle_name(thread):
    # Renamed within the 3.13 series, and back.
    return "_os_thread_handle" if hasattr(thread, "_os_thread_handle") else "_handle"


class _RunningHandle:
    """What the interpreter must find on the main thread: it is alive, and others say when not."""

    def is_done(self):
        return False

    def _set_done(self):
        """Not for others to say."""

    def join(self):
        """It is the caller."""


class Patcher(BasePatcher):
    def patch_active_main_thread(self, thread):
        from gevent.thread import _ThreadHandle

        handle = _ThreadHandle()
        handle._set_greenlet(getcurrent())
        thread._after_fork = lambda new_ident=None: new_ident
        setattr(thread, _handle_name(thread), handle)
        thread._ident = handle.ident

    def adopt_unstarted_thread(self, thread):
        from gevent.thread import _ThreadHandle

        setattr(thread, _handle_name(thread), _ThreadHandle())

    def patch_shutdown_on_main_thread(self):
        from .api import patch_item

        threading, main_thread = self.threading_mod, self.main_thread
        main_greenlet = main_thread._greenlet = getcurrent()
        name = _handle_name(main_thread)

        def _shutdown():
            getattr(main_thread, name)._set_done()
            self.let_joiners_run(main_greenlet)
            setattr(main_thread, name, _RunningHandle())

            # The interpreter calls these before it joins, because threads may be waiting for
            # them, and it will do so again.
            threading._SHUTTING_DOWN = True
            for call in reversed(threading._threading_atexits):
                call()
            del threading._threading_atexits[:]

            # It joins only threads that are native.
            for thread in threading.enumerate():
                if thread.daemon or thread is main_thread:
                    continue
                while thread.is_alive():
                    handle = getattr(thread, name)
                    try:
                        handle.join(0.001)
                    except RuntimeError:  # it is this one
                        handle._set_done()
                        break
            self.run_shutdown()

        patch_item(threading, "_shutdown", _shutdown)
