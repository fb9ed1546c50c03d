"""Native threads for work that does not cooperate: `ThreadPool` and `ThreadPoolExecutor`.

A task goes to the workers by a native queue. Its result comes back through the hub's queue; until
then it keeps the hub's loop running.
"""

import concurrent.futures
import os
import sys
from concurrent.futures import _base as cfb

from greenlet import greenlet as RawGreenlet

from gevent import _core, monkey
from gevent._core import ThreadResult, flush_wakes, helper_thread_begins
from gevent._hub_local import get_hub_if_exists
from gevent._threading import (
    EmptyTimeout,
    Queue,
    get_thread_ident,
    start_helper_thread,
    start_new_thread,
)
from gevent._util import Lazy
from gevent.event import AsyncResult
from gevent.exceptions import InvalidThreadUseError
from gevent.greenlet import Greenlet
from gevent.hub import _get_hub_noargs as get_hub
from gevent.hub import getcurrent, sleep
from gevent.lock import Semaphore
from gevent.pool import GroupMappingMixin
from gevent.timeout import Timeout as GTimeout
from gevent.util import clear_stack_frames

__all__ = [
    "ThreadPool",
    "ThreadPoolExecutor",
    "ThreadResult",
]


_forks = 0


def _after_fork_in_child():
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _format_hub(hub):
    if hub is None:
        return "<missing>"
    return "<%s at 0x%x thread_ident=0x%x>" % (type(hub).__name__, id(hub), hub.thread_ident)


def _get_thread_profile(_sys=sys):
    """Return the profile function for new threads, without importing threading for it."""
    threading = _sys.modules.get("threading")
    return threading._profile_hook if threading is not None else None


def _get_thread_trace(_sys=sys):
    """Return the trace function for new threads, without importing threading for it."""
    threading = _sys.modules.get("threading")
    return threading._trace_hook if threading is not None else None


class _WorkerGreenlet(RawGreenlet):
    """What runs in a worker thread. It is a greenlet so that listings show it by its repr.

    What a worker needs at the end of the interpreter's life is held by its attributes and default
    arguments, as the globals of modules may be gone before a daemon thread is.
    """

    #: For `gevent.util.GreenletTree`: a tree of its own.
    greenlet_tree_is_root = True

    _thread_ident = 0
    _exc_info = sys.exc_info
    _get_hub_if_exists = staticmethod(get_hub_if_exists)
    #: The hub that a task created in this thread, if any.
    _hub_of_worker = None
    #: The hub of the pool.
    _hub = None
    _task_queue_cookie = None
    #: After how many seconds without a task the thread ends; -1 is never.
    _idle_task_timeout = -1
    _done_comes_next = True

    def __init_subclass__(cls):
        cls._done_comes_next = False

    def __init__(self, threadpool):
        """Start a thread for *threadpool*. Called in the thread of the pool's hub."""
        super().__init__()
        self._hub = threadpool.hub
        if monkey.is_module_patched("sys"):
            self._stderr = monkey.get_original("sys", "stderr")
        else:
            self._stderr = sys.stderr
        self._task_queue = threadpool.task_queue
        self._task_queue_cookie = self._task_queue.allocate_cookie()
        self._unregister_worker = threadpool._unregister_worker
        self._on_worker_exit = threadpool._on_worker_exit
        self._idle_task_timeout = threadpool._idle_task_timeout
        threadpool._register_worker(self)
        try:
            start_helper_thread(start_new_thread, self._begin)
        except:
            self._unregister_worker(self)
            raise

    def _begin(
        self,
        _get_c=getcurrent,
        _get_ti=get_thread_ident,
        _begins=helper_thread_begins,
        _had_no_stack=_core.had_no_stack,
    ):
        self.parent = _get_c()
        self.parent.greenlet_tree_is_ignored = True
        self._thread_ident = _get_ti()
        _begins()
        try:
            self.switch()
        except:  # noqa: E722 (run() has printed what could be printed)
            if _had_no_stack(self):
                # A worker needs no stack but the thread's.
                self.run()

    def _before_block(self, hub):
        """A task has made *hub* in this thread: it must not be reported as blocked while idle."""
        hub.name = "ThreadPool Worker Hub"
        if hub.periodic_monitoring_thread is not None:
            hub.periodic_monitoring_thread.ignore_current_greenlet_blocking()
        self._hub_of_worker = hub

    def _before_run_task(
        self,
        func,
        args,
        kwargs,
        thread_result,
        _sys=sys,
        _get_thread_profile=_get_thread_profile,
        _get_thread_trace=_get_thread_trace,
    ):
        """Install the hooks of `threading.setprofile` and `threading.settrace`, as they are now."""
        hook = _get_thread_profile()
        if hook is not None:
            _sys.setprofile(hook)
        hook = _get_thread_trace()
        if hook is not None:
            _sys.settrace(hook)

    def _after_run_task(self, func, args, kwargs, thread_result, _sys=sys):
        """Remove the hooks. Nothing is called that has nothing to do: it would be audited."""
        if _sys.getprofile() is not None:
            _sys.setprofile(None)
        if _sys.gettrace() is not None:
            _sys.settrace(None)

    def _run_task(self, func, args, kwargs, thread_result):
        try:
            self._before_run_task(func, args, kwargs, thread_result)
        except:
            # The caller must hear of it. The thread ends, and another one takes its place.
            thread_result.handle_error((self, func), self._exc_info())
            raise
        try:
            # Who waits for the result needs the GIL, and is told when this thread lets go of it.
            # That comes next, unless a subclass does something else first.
            thread_result.set(func(*args, **kwargs), self._done_comes_next)
        except:  # noqa: E722 (it goes to whoever waits for the result)
            thread_result.handle_error((self, func), self._exc_info())
        finally:
            self._after_run_task(func, args, kwargs, thread_result)

    def run(self, _EmptyTimeout=EmptyTimeout, _flush=flush_wakes):
        queue = self._task_queue
        cookie = self._task_queue_cookie
        idle_task_timeout = self._idle_task_timeout
        own_hub = self._get_hub_if_exists
        on_worker_exit = self._on_worker_exit
        told_to_stop = False
        task = None
        try:
            while True:
                hub = own_hub()
                if hub is not None:
                    self._before_block(hub)
                # Seen by gevent.util, which does not show the stack of a thread that only waits.
                gevent_threadpool_worker_idle = True
                try:
                    task = queue.get(cookie, idle_task_timeout)
                except _EmptyTimeout:
                    return
                gevent_threadpool_worker_idle = False  # noqa: F841
                try:
                    if task is None:
                        told_to_stop = True
                        return
                    self._run_task(*task)
                except:
                    task = repr(task)
                    raise
                finally:
                    if not isinstance(task, str):
                        # Not to be kept while waiting for the next one.
                        task = None
                    queue.task_done()
        except Exception as ex:
            print(f"Failed to run worker thread. Task={task!r} Exception={ex!r}", file=self._stderr)
            self._print_tb(ex.__traceback__, self._stderr)
        finally:
            _flush()
            self.cleanup(own_hub())
            if not told_to_stop:
                on_worker_exit()

    @staticmethod
    def _print_tb(tb, stderr):
        # The traceback module may not work any more.
        while tb is not None:
            code = tb.tb_frame.f_code
            print(
                f'  File "{code.co_filename}", line {tb.tb_lineno}, in {code.co_name}',
                file=stderr,
            )
            tb = tb.tb_next

    def cleanup(self, hub_of_worker):
        """Leave the pool, and destroy the hub that a task made in this thread."""
        if self._hub is not None:
            self._hub = None
            self._unregister_worker(self)
            self._unregister_worker = lambda _: None
            self._task_queue = None
            self._task_queue_cookie = None
        if hub_of_worker is not None:
            hub_of_worker.destroy(True)

    def __repr__(self, _format_hub=_format_hub):
        return "<ThreadPoolWorker at 0x%x thread_ident=0x%x threadpool-hub=%s>" % (
            id(self),
            self._thread_ident,
            _format_hub(self._hub),
        )


class ThreadPool(GroupMappingMixin):
    """A pool of at most *maxsize* native threads that run functions for the greenlets of one hub.

    Most programs use the pool that the hub has::

        pool = gevent.get_hub().threadpool
        result = pool.spawn(lambda: "Some func").get()

    Only the thread of the pool's *hub*, by default the current one, may spawn. A thread ends after
    *idle_task_timeout* seconds without work, -1 being never. The functions set by
    `threading.setprofile` and `threading.settrace` are active while a task runs.

    ``len`` is the number of unfinished tasks, so that a pool without any is false.
    """

    __slots__ = (
        "_available_worker_threads_greenlet_sem",
        "_forks",
        "_idle_task_timeout",
        "_maxsize",
        "_worker_greenlets",
        "fork_watcher",
        "hub",
        "manager",
        "pid",
        "task_queue",
    )

    _WorkerGreenlet = _WorkerGreenlet

    def __init__(self, maxsize, hub=None, idle_task_timeout=-1):
        self.hub = get_hub() if hub is None else hub
        self.pid = os.getpid()
        self._forks = _forks
        #: A greenlet that waits until surplus threads have ended.
        self.manager = None
        self.task_queue = Queue()
        self.fork_watcher = None
        self._idle_task_timeout = idle_task_timeout
        self._worker_greenlets = set()
        self._maxsize = 0
        # One more than there are threads: a task may be waiting in the queue for the next free one.
        self._available_worker_threads_greenlet_sem = Semaphore(1, self.hub)
        self._set_maxsize(maxsize)
        self.fork_watcher = self.hub.loop.fork(ref=False)

    def _register_worker(self, worker):
        self._worker_greenlets.add(worker)

    def _unregister_worker(self, worker):
        self._worker_greenlets.discard(worker)

    def _on_worker_exit(self):
        # In the worker's thread, so that adjust() cannot be called here.
        if self.task_queue.unfinished_tasks:
            self.hub.loop.run_callback_threadsafe(self.adjust)

    def _set_maxsize(self, maxsize):
        if not isinstance(maxsize, int):
            raise TypeError(f"maxsize must be integer: {maxsize!r}")
        if maxsize < 0:
            raise ValueError(f"maxsize must not be negative: {maxsize!r}")
        semaphore = self._available_worker_threads_greenlet_sem
        semaphore.counter += maxsize - self._maxsize
        self._maxsize = maxsize
        self.adjust()
        semaphore._start_notify()

    def _get_maxsize(self):
        return self._maxsize

    maxsize = property(
        _get_maxsize,
        _set_maxsize,
        doc="""The greatest number of threads, and about the number of tasks that do not block
        the greenlet that spawns them.""",
    )

    def __repr__(self, _format_hub=_format_hub):
        return "<%s at 0x%x tasks=%s size=%s maxsize=%s hub=%s>" % (
            type(self).__name__,
            id(self),
            len(self),
            self.size,
            self.maxsize,
            _format_hub(self.hub),
        )

    def __len__(self):
        """Return the number of tasks that have not finished."""
        return self.task_queue.unfinished_tasks

    def _get_size(self):
        return len(self._worker_greenlets)

    def _set_size(self, size):
        if size < 0:
            raise ValueError(f"Size of the pool cannot be negative: {size!r}")
        if size > self._maxsize:
            raise ValueError(
                f"Size of the pool cannot be bigger than maxsize: {size!r} > {self._maxsize!r}"
            )
        if self.manager:
            self.manager.kill()
        workers = self._worker_greenlets
        while len(workers) < size:
            self._add_thread()
        for _ in self._backing_off():
            if len(workers) <= size:
                break
            self._stop_threads(size)
            if getcurrent() is self.hub:
                break
        self._watch_forks()

    size = property(
        _get_size,
        _set_size,
        doc="""The number of threads. They are started as they are needed; assigning starts or
        stops threads, up to `maxsize`.""",
    )

    def _backing_off(self, delay=0):
        """Yield at once, then after sleeps that become longer, for polling what threads do."""
        yield
        delay = max(delay, self.hub.loop.approx_timer_resolution)
        while True:
            sleep(delay)
            delay = min(delay * 2, 0.05)
            yield

    def _stop_threads(self, size):
        """Put as many requests to end into the queue as are needed for *size* threads."""
        # Tasks that are not finished may themselves be such requests.
        while len(self._worker_greenlets) - size > self.task_queue.unfinished_tasks:
            self.task_queue.put(None)

    def _watch_forks(self):
        if self._worker_greenlets:
            if self.fork_watcher is None:
                # Used again after it was killed.
                self.fork_watcher = self.hub.loop.fork(ref=False)
            self.fork_watcher.start(self._on_fork)
        elif self.fork_watcher is not None:
            self.fork_watcher.stop()

    def _on_fork(self):
        """In the child of a fork: its only thread is the one that forked, so begin anew."""
        if os.getpid() == self.pid:
            return
        frames = sys._current_frames()
        for worker in list(self._worker_greenlets):
            # The thread is gone, but what its frames refer to is not.
            clear_stack_frames(frames.get(worker._thread_ident))
            worker.cleanup(worker._hub_of_worker)
            worker.__dict__.clear()
        self.task_queue.kill()
        self.__init__(self._maxsize, idle_task_timeout=self._idle_task_timeout)

    def join(self):
        """Wait until all tasks have finished."""
        for _ in self._backing_off(0.0005):
            if self.task_queue.unfinished_tasks <= 0:
                return

    def kill(self):
        """Stop all threads, after the tasks they are running, and do not watch forks any more.

        A task that is spawned later starts threads, and watching, again.
        """
        self.size = 0
        watcher, self.fork_watcher = self.fork_watcher, None
        if watcher is not None:
            watcher.close()

    def _adjust_step(self):
        workers = self._worker_greenlets
        while len(workers) < self._maxsize and self.task_queue.unfinished_tasks > len(workers):
            self._add_thread()
        self._stop_threads(self._maxsize)
        self._watch_forks()

    def _adjust_wait(self):
        for _ in self._backing_off():
            self._adjust_step()
            if len(self._worker_greenlets) <= self._maxsize:
                return

    def adjust(self):
        """Start threads for waiting tasks, and stop those that are more than `maxsize`."""
        self._adjust_step()
        if not self.manager and len(self._worker_greenlets) > self._maxsize:
            self.manager = Greenlet.spawn(self._adjust_wait)

    def _add_thread(self):
        self._WorkerGreenlet(self)

    def spawn(self, func, *args, **kwargs):
        """Run ``func(*args, **kwargs)`` in a thread and return a `gevent.event.AsyncResult`.

        Waits until a thread is free or can be started. Raises
        `gevent.exceptions.InvalidThreadUseError` in a thread that is not the hub's.
        """
        return self._spawn(func, args, kwargs, False)

    def _spawn(self, func, args, kwargs, lazily):
        """With *lazily*, the caller is about to block, and calls `flush_wakes` if it did not."""
        if get_hub_if_exists() is not self.hub:
            raise InvalidThreadUseError
        if self._forks != _forks:
            # The watcher is only called in the loop's next iteration.
            self._on_fork()
        semaphore = None
        while semaphore is not self._available_worker_threads_greenlet_sem:
            # It is another one if the process forked meanwhile.
            semaphore = self._available_worker_threads_greenlet_sem
            semaphore.acquire()
        result = AsyncResult()
        thread_result = None
        queue = self.task_queue
        try:
            thread_result = ThreadResult(result, self.hub, semaphore)
            queue.put((func, args, kwargs, thread_result), lazily)
            workers = len(self._worker_greenlets)
            if workers < queue.unfinished_tasks or workers > self._maxsize:
                self.adjust()
        except:
            if thread_result is not None:
                thread_result.destroy_in_main_thread()
            semaphore.release()
            raise
        return result

    def apply(self, func, args=None, kwds=None):
        """Run ``func(*args, **kwds)`` in a thread, and return its result or raise its exception.

        In a thread that is not the pool's hub's, the function is called at once: a worker cannot
        wait for its own pool.
        """
        args = () if args is None else tuple(args)
        kwds = {} if kwds is None else kwds
        if self._apply_immediately():
            return func(*args, **kwds)
        if type(self).spawn is not __class__.spawn:
            return self.spawn(func, *args, **kwds).get()
        try:
            return self._spawn(func, args, kwds, True).get()
        finally:
            flush_wakes()

    def _apply_immediately(self):
        # A worker cannot wait for its own pool, whose results arrive in another thread.
        return get_hub_if_exists() is not self.hub

    def _apply_async_cb_spawn(self, callback, result):
        callback(result)

    def _apply_async_use_greenlet(self):
        return True


def _ignore_error(future_proxy, fn):
    def call(_):
        try:
            fn(future_proxy)
        except Exception:
            future_proxy.hub.print_exception((fn, future_proxy), None, None, None)

    return call


class _FutureProxy:
    """An `AsyncResult` as a `concurrent.futures.Future`, for what that module does with one."""

    def __init__(self, asyncresult):
        self.asyncresult = asyncresult

    @Lazy
    def _condition(self):
        if monkey.is_module_patched("threading") or self.done():
            import threading

            return threading.Condition()
        # A native condition would block the hub that has to bring the result.
        raise AttributeError("_condition")

    @Lazy
    def _waiters(self):
        self.asyncresult.rawlink(self._tell_waiters)
        return []

    def _tell_waiters(self, _):
        for waiter in self._waiters:
            if self.successful():
                waiter.add_result(self)
            else:
                waiter.add_exception(self)

    @property
    def _state(self):
        return cfb.FINISHED if self.done() else cfb.RUNNING

    def set_running_or_notify_cancel(self):
        """Do nothing: it is the executor's part, and this one keeps no such state."""

    def result(self, timeout=None):
        """Return the result or raise the exception, after waiting at most *timeout* seconds."""
        try:
            return self.asyncresult.result(timeout=timeout)
        except GTimeout:
            raise concurrent.futures.TimeoutError()

    def exception(self, timeout=None):
        """Return the exception or `None`, after waiting at most *timeout* seconds."""
        self.asyncresult.wait(timeout=timeout)
        if not self.asyncresult.ready():
            raise concurrent.futures.TimeoutError()
        return self.asyncresult.exception

    def add_done_callback(self, fn):
        """Call *fn* with this future when it is done; what it raises is printed."""
        if self.done():
            fn(self)
        else:
            self.asyncresult.rawlink(_ignore_error(self, fn))

    def rawlink(self, fn):
        """Call *fn* with this future when it is done; see `AsyncResult.rawlink`."""
        self.asyncresult.rawlink(lambda _: fn(self))

    def __str__(self):
        return str(self.asyncresult)

    def __getattr__(self, name):
        return getattr(self.asyncresult, name)


class ThreadPoolExecutor(concurrent.futures.ThreadPoolExecutor):
    """A `concurrent.futures.ThreadPoolExecutor` whose threads are native, patched or not.

    Its futures can be given to `gevent.wait`. `concurrent.futures.wait` and ``as_completed`` take
    them only if threading is patched.
    """

    def __init__(self, *args, **kwargs):
        """Takes the base class's arguments, of which only *max_workers* has an effect."""
        super().__init__(*args, **kwargs)
        self._threadpool = ThreadPool(self._max_workers)

    def submit(self, fn, *args, **kwargs):
        """Run ``fn(*args, **kwargs)`` in a thread and return a future."""
        with self._shutdown_lock:
            if self._shutdown:
                raise RuntimeError("cannot schedule new futures after shutdown")
            return _FutureProxy(self._threadpool.spawn(fn, *args, **kwargs))

    def shutdown(self, wait=True, **kwargs):
        """Accept no more work, and stop the threads when they have done what they are doing."""
        super().shutdown(wait, **kwargs)
        threadpool, self._threadpool = self._threadpool, None
        if threadpool is not None:
            threadpool.kill()

    kill = shutdown

    def _adjust_thread_count(self):
        """Do nothing: the pool starts its threads itself."""
