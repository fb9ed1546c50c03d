"""The hub: the greenlet that runs the event loop of its thread, and the functions around it."""

import os
import sys
import traceback

from greenlet import GreenletExit, getcurrent
from greenlet import error as GreenletError
from greenlet import greenlet as RawGreenlet

from gevent import _core, _hub_primitives
from gevent._compat import reraise
from gevent._config import config as GEVENT_CONFIG
from gevent._greenlet_primitives import TrackedRawGreenlet
from gevent._hub_local import (
    get_hub,
    get_hub_noargs,
    get_loop,
    get_thread_ident,
    set_default_hub_class,
    set_hub,
    set_loop,
)
from gevent._hub_local import get_hub_if_exists as _get_hub
from gevent._hub_primitives import WaitOperationsGreenlet
from gevent._ident import IdentRegistry
from gevent._resumed import resumed
from gevent._util import Lazy, gmctime, readproperty
from gevent._waiter import Waiter
from gevent.exceptions import HubDestroyed, LoopExit

__all__ = [
    "getcurrent",
    "GreenletExit",
    "spawn_raw",
    "sleep",
    "kill",
    "signal",
    "reinit",
    "get_hub",
    "Hub",
    "Waiter",
]

wait = _hub_primitives.wait_on_objects
iwait = _hub_primitives.iwait_on_objects

MAIN_THREAD_IDENT = get_thread_ident()
if hasattr(os, "register_at_fork"):
    # In the child the thread that forked is the main one, whichever it was.
    os.register_at_fork(after_in_child=_core.set_main_thread)

_core.call_when_resumed(resumed)

sleep = _core.sleep
spawn_raw = _core.spawn_raw


def idle(priority=0):
    """Block until nothing of the same or a higher *priority* is pending in the event loop."""
    hub = get_hub_noargs()
    with hub.loop.idle() as watcher:
        if priority:
            watcher.priority = priority
        hub.wait(watcher)


def kill(greenlet, exception=GreenletExit, block=False, timeout=None):
    """
    Raise *exception* in *greenlet*, which may be a raw one.

    With *block*, wait until it is dead or *timeout* seconds have passed; upstream has neither
    argument and never blocks.
    """
    if greenlet.dead:
        return
    if hasattr(greenlet, "kill"):
        greenlet.kill(exception=exception, block=block, timeout=timeout)
        return
    get_hub_noargs().loop.run_callback(greenlet.throw, exception)
    if block:
        from gevent.timeout import Timeout

        with Timeout._start_new_or_dummy(timeout, False):
            while not greenlet.dead:
                sleep(0)


class signal:
    """
    signal_handler(signalnum, handler, *args, **kwargs) -> object

    Call *handler* with the arguments, in a new greenlet, each time the process receives the signal.
    The object's ``cancel`` ends that; keep the object until then.
    """

    greenlet_class = None

    def __init__(self, signalnum, handler, *args, **kwargs):
        if not callable(handler):
            raise TypeError("signal handler must be callable.")
        self.hub = get_hub_noargs()
        self.watcher = self.hub.loop.signal(signalnum, ref=False)
        self.handler = handler
        self.args = args
        self.kwargs = kwargs
        if self.greenlet_class is None:
            from gevent import Greenlet

            type(self).greenlet_class = Greenlet
            self.greenlet_class = Greenlet
        self.watcher.start(self._start)

    @property
    def ref(self):
        """Whether waiting for the signal keeps the loop running; at first it does not."""
        return self.watcher.ref

    @ref.setter
    def ref(self, value):
        self.watcher.ref = value

    def cancel(self):
        """Handle the signal no more, and let go of handler and arguments."""
        watcher, self.watcher = self.watcher, None
        if watcher is not None:
            watcher.stop()
            watcher.close()
        self.handler = self.args = self.kwargs = self.hub = self.greenlet_class = None

    def _start(self):
        try:
            self.greenlet_class(self.handle).switch()
        except:
            self.hub.handle_error(None, *sys.exc_info())

    def handle(self):
        """Call the handler; an error of it is the hub's to report."""
        try:
            self.handler(*self.args, **self.kwargs)
        except:
            self.hub.handle_error(None, *sys.exc_info())


def reinit(hub=None):
    """
    reinit() -> None

    Make the hub usable in a forked child. ``gevent.fork`` and a patched ``os.fork`` do it.
    """
    if hub is None:
        hub = _get_hub()
    if hub is None:
        return
    hub.loop.reinit()
    # Fork watchers run with the next iteration of the loop, too late for whoever needs the
    # thread pool at once.
    for part in (hub._threadpool, hub._resolver, hub.periodic_monitoring_thread):
        on_fork = getattr(part, "_on_fork", None)
        if on_fork is not None:
            on_fork()


def _leave_only_current():
    """
    In a forked child, after `reinit`: have only the current greenlet go on, as a thread would.

    The others are not killed, which would run code of theirs; nothing wakes them any more. When
    this one ends and is not the main one, the process does.
    """
    hub = _get_hub()
    if hub is not None:
        hub._alone = getcurrent() is not hub.parent
        hub.loop.leave_only_current()


class Hub(WaitOperationsGreenlet):
    """
    The greenlet that runs the event loop of its thread; `get_hub` makes it when it is needed.

    A greenlet that blocks switches to it. If that greenlet has an attribute ``switch_out``, it is
    called first.
    """

    #: Raised in the event loop, these reach the main greenlet.
    SYSTEM_ERROR = (KeyboardInterrupt, SystemExit, SystemError)
    #: Raised in the event loop or a greenlet, these are not reported.
    NOT_ERROR = (GreenletExit, SystemExit)
    #: The size of `threadpool`, looked at when that is made.
    threadpool_size = 10
    periodic_monitoring_thread = None
    #: The native thread it was made in and runs in.
    thread_ident = None
    #: Shown by ``repr``.
    name = ""

    _hub_counter = 0
    #: Whether this is a forked child in which a greenlet other than the main one goes on alone.
    _alone = False
    #: Whether the main greenlet is in `join`.
    _joined = False

    def __init__(self, loop=None, default=None):
        super().__init__(None, None)
        self.thread_ident = get_thread_ident()
        if hasattr(loop, "run"):
            if default is not None:
                raise TypeError("Unexpected argument: default")
            self.loop = loop
        elif get_loop() is not None:
            # Left by a hub that was destroyed without its loop.
            self.loop = get_loop()
        else:
            if default is None and self.thread_ident != MAIN_THREAD_IDENT:
                default = False
            if loop is None:
                loop = self.backend
            self.loop = self.loop_class(flags=loop, default=default)
        self._resolver = None
        self._threadpool = None
        __class__._hub_counter += 1
        self.minimal_ident = __class__._hub_counter
        self.attach()

    @Lazy
    def ident_registry(self):
        """Gives out `Greenlet.minimal_ident`."""
        return IdentRegistry()

    @Lazy
    def format_context(self):
        """Makes the text of a context that an error is reported with.

        Looked up when there is one: a hub may be made in the middle of an import, which must not
        begin another.
        """
        return GEVENT_CONFIG.format_context

    @property
    def loop_class(self):
        """The class of the loop that a hub makes for itself."""
        return GEVENT_CONFIG.loop

    @property
    def backend(self):
        """The backend that was asked for by libev's setting, usually None."""
        return GEVENT_CONFIG.libev_backend

    @property
    def main_hub(self):
        """Whether this is the hub of the main thread."""
        return self.thread_ident == MAIN_THREAD_IDENT

    def __repr__(self):
        if self.loop is None:
            info = "destroyed"
        else:
            try:
                info = self.loop._format()
            except Exception as ex:
                info = str(ex) or repr(ex) or "error"
        text = f"<{self.__class__.__name__} {self.name!r} at 0x{id(self):x} {info}"
        if self._resolver is not None:
            text += f" resolver={self._resolver!r}"
        if self._threadpool is not None:
            text += f" threadpool={self._threadpool!r}"
        return f"{text} thread_ident={hex(self.thread_ident)}>"

    # Errors

    def _normalize_exception(self, t, v, tb):
        if t is None and v is None and tb is None:
            t, v, tb = sys.exc_info()
        if isinstance(v, str):
            v = t(v)
        return t, v, tb

    def handle_error(self, context, type, value, tb):
        """
        Called by the event loop for an exception that nobody caught.

        It is printed unless it is one of `NOT_ERROR`; one of `SYSTEM_ERROR`, and any if *context*
        is None, goes to `handle_system_error`. May be replaced, also on the instance.
        """
        type, value, tb = self._normalize_exception(type, value, tb)
        if type is HubDestroyed:
            reraise(type, value, tb)
        if not issubclass(type, self.NOT_ERROR):
            self.print_exception(context, type, value, tb)
        if context is None or issubclass(type, self.SYSTEM_ERROR):
            self.handle_system_error(type, value, tb)

    def handle_system_error(self, type, value, tb=None):
        """Raise the exception in the main greenlet, the hub's parent."""
        current = getcurrent()
        if current is self or current is self.parent or self.loop is None:
            self.parent.throw(type, value, tb)
            return
        # Somebody may handle it and go on: then this greenlet has its turn again.
        again = None
        try:
            again = self.loop.run_callback(current.switch)
        except:
            traceback.print_exc(file=self.exception_stream)
        try:
            self.parent.throw(type, value, tb)
        finally:
            if again is not None:
                again.stop()

    @readproperty
    def exception_stream(self):
        """Where exceptions are printed: ``sys.stderr`` unless assigned; None for nowhere."""
        stderr = sys.stderr if sys else None
        # One that gives way to the hub cannot be used in the hub.
        if type(stderr).__name__ == "FileObjectThread":
            stderr = stderr.io
        return stderr

    def print_exception(self, context, t, v, tb):
        """Print an exception and where it came from."""
        stream = self.exception_stream
        if not stream:
            # The interpreter is ending.
            return
        t, v, tb = self._normalize_exception(t, v, tb)
        if v is None:
            stream.write(f"{t.__name__}\n")
        else:
            traceback.print_exception(t, v, tb, file=stream)
        del tb
        try:
            stream.write(gmctime())
            stream.write(" " if context is not None else "\n")
        except:
            pass
        if context is None:
            return
        if not isinstance(context, str):
            try:
                context = self.format_context(context)
            except:
                traceback.print_exc(file=self.exception_stream)
                context = repr(context)
        stream.write(f"{context} failed with {getattr(t, '__name__', 'exception')}\n\n")

    # Running

    def run(self):
        """The body of the hub's greenlet: runs the loop. Nobody calls it directly."""
        assert self is getcurrent(), "Do not call Hub.run() directly"
        self.start_periodic_monitoring_thread()
        while True:
            loop = self.loop
            loop.error_handler = self
            try:
                loop.run()
            finally:
                loop.error_handler = None
            if self.stopping():
                return
            if self._alone:
                # The parent belongs to the process that forked.
                for stream in (sys.stdout, sys.stderr):
                    try:
                        stream.flush()
                    except (AttributeError, OSError, ValueError):
                        pass
                os._exit(0)
            # Nothing is left that could wake anybody. The parent gets to know that, and the
            # hub goes on here when somebody blocks again.
            waiting = self.debug_waiting() if hasattr(self, "debug_waiting") else []
            loop = None
            self.parent.throw(LoopExit("This operation would block forever", self, waiting))
            waiting = None

    def start_periodic_monitoring_thread(self):
        """Start the thread that watches for a blocked loop, if configured; return it."""
        if self.periodic_monitoring_thread is None and GEVENT_CONFIG.monitor_thread:
            from gevent._monitor import PeriodicMonitoringThread
            from gevent.events import (
                PeriodicMonitorThreadStartedEvent,
                notify_and_call_entry_points,
            )

            self.periodic_monitoring_thread = PeriodicMonitoringThread(self)
            if self.main_hub:
                self.periodic_monitoring_thread.install_monitor_memory_usage()
            notify_and_call_entry_points(
                PeriodicMonitorThreadStartedEvent(self.periodic_monitoring_thread)
            )
        return self.periodic_monitoring_thread

    def join(self, timeout=None):
        """
        Wait until the event loop has nothing left to do; only from the main greenlet.

        Returns True then, and False if *timeout* seconds passed before.
        """
        assert getcurrent() is self.parent, "only possible from the MAIN greenlet"
        if self.dead:
            return True
        waiter = Waiter(self)
        timer = None
        if timeout is not None:
            timer = self.loop.timer(timeout, ref=False)
            timer.start(waiter.switch, None)
        self._joined = True
        try:
            waiter.get()
        except LoopExit:
            return True
        finally:
            self._joined = False
            # The traceback of a LoopExit would keep this frame, and so the hub, alive.
            del waiter, self
            if timer is not None:
                timer.stop()
                timer.close()
            del timer
        return False

    def stop(self):
        """
        Let who joins the hub go on now; callable from any greenlet and thread.

        What runs stays as it is, and the hub can be entered again. If nobody joins it, nothing
        happens. (Upstream has no such method.)
        """
        loop = self.loop
        if loop is not None:
            loop.run_callback_threadsafe(self._end_join)

    def _end_join(self):
        if self._joined:
            self.loop.break_()

    def destroy(self, destroy_loop=None):
        """
        End the hub and free what it holds; after that nothing can block with it.

        The loop is destroyed too unless it is the default one or *destroy_loop* says otherwise.
        """
        loop = self.loop
        if loop is None:
            return
        if self.thread_ident != get_thread_ident() and not loop.destroyed:
            # Nothing of it may be touched from here while it runs: it ends itself, soon.
            loop.run_callback_threadsafe(self.destroy, destroy_loop)
            return
        if destroy_loop is None:
            destroy_loop = not loop.default
        if self.periodic_monitoring_thread is not None:
            self.periodic_monitoring_thread.kill()
            self.periodic_monitoring_thread = None
        if self._resolver is not None:
            self._resolver.close()
            self._resolver = None
        if self._threadpool is not None:
            self._threadpool.kill()
            self._threadpool = None
        # Its frames hold references; ending `run` frees them.
        try:
            self.throw(HubDestroyed(destroy_loop))
        except LoopExit:
            pass
        except GreenletError:
            # Called from another thread: the frames stay.
            pass
        self.detach()
        if destroy_loop:
            if get_loop() is loop:
                set_loop(None)
            loop.destroy()
        else:
            # For the next hub of this thread.
            set_loop(loop)
        self.loop = None
        if _get_hub() is self:
            set_hub(None)

    # What hangs on a hub

    @property
    def resolver_class(self):
        """The class of `resolver`."""
        return GEVENT_CONFIG.resolver

    @property
    def resolver(self):
        """The DNS resolver of the socket functions."""
        if self._resolver is None:
            self._resolver = self.resolver_class(hub=self)
        return self._resolver

    @resolver.setter
    def resolver(self, value):
        self._resolver = value

    @resolver.deleter
    def resolver(self):
        self._resolver = None

    @property
    def threadpool_class(self):
        """The class of `threadpool`."""
        return GEVENT_CONFIG.threadpool

    @property
    def threadpool(self):
        """The pool of native threads for calls that would block the loop."""
        if self._threadpool is None:
            self._threadpool = self.threadpool_class(
                self.threadpool_size,
                hub=self,
                idle_task_timeout=GEVENT_CONFIG.threadpool_idle_task_timeout,
            )
        return self._threadpool

    @threadpool.setter
    def threadpool(self, value):
        self._threadpool = value

    @threadpool.deleter
    def threadpool(self):
        self._threadpool = None


set_default_hub_class(Hub)
# Names that others import from here.
_get_hub_noargs = get_hub_noargs
_EXPORTED = (RawGreenlet, TrackedRawGreenlet)


class linkproxy:
    """Calls *callback* with *obj*, once, whatever it is called with."""

    __slots__ = ("callback", "obj")

    def __init__(self, callback, obj):
        self.callback = callback
        self.obj = obj

    def __call__(self, *args):
        callback, obj = self.callback, self.obj
        self.callback = self.obj = None
        callback(obj)
