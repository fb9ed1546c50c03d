"""Descriptors and child processes, from :mod:`os`, without blocking other greenlets.

Reading and writing (never patched in; call them by name): :func:`nb_read` and :func:`nb_write` for
descriptors that :func:`make_nonblocking` has prepared, :func:`tp_read` and :func:`tp_write` for any
other, in the thread pool.

Children: :func:`fork`, :func:`forkpty`, :func:`posix_spawn` and :func:`waitpid` work together. The
loop reaps every child of the process, so whoever starts one has to be told here
(:func:`fork_and_watch`) in order to learn its status. Setting ``GEVENT_NOWAITPID`` before this
module is imported leaves :func:`waitpid` to the system.

Greenlets survive a fork: those that were about to run in the parent run in the child as well. With
``GEVENT_FORK_KILL`` set only the greenlet that forked does, as only its thread would; so it always
is in the processes of :mod:`multiprocessing`, once that is patched.
"""

import errno
import os
import sys
import time
import warnings
from stat import S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK, S_ISREG

from gevent import _core
from gevent._config import config
from gevent._util import copy_globals
from gevent.event import Event
from gevent.hub import _get_hub, _leave_only_current, getcurrent, reinit
from gevent.hub import _get_hub_noargs as get_hub

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

EAGAIN = getattr(errno, "EAGAIN", 11)

__implements__ = ["fork"]
__extensions__ = ["tp_read", "tp_write"]

_read = os.read
_write = os.write
_readv = os.readv
_close = os.close
_fstat = os.fstat

ignored_errors = [EAGAIN, errno.EINTR]


def _loop_may(fd):
    """Whether the loop reads and writes by itself, and can do so with *fd*."""
    get_hub()
    return _core.files_are_native() and S_IFMT(_fstat(fd).st_mode) in (S_IFREG, S_IFIFO, S_IFSOCK)


def tp_read(fd, n):
    """Read up to *n* bytes from *fd* in the thread pool; ``b''`` is the end of the file.

    On a loop that reads and writes by itself (io_uring) it does that, for files, pipes and sockets.
    A call that is killed then takes nothing of what comes later.
    """
    if _loop_may(fd):
        return _core.file_read(fd, n)
    return get_hub().threadpool.apply(_read, (fd, n))


def tp_write(fd, buf):
    """Write *buf* to *fd* in the thread pool, or as for :func:`tp_read`; return how many bytes."""
    if _loop_may(fd):
        return _core.file_write(fd, buf)
    return get_hub().threadpool.apply(_write, (fd, buf))


def _when_ready(fd, mask, call, argument):
    """Repeat ``call(fd, argument)`` until it does not refuse, waiting before each for *fd*."""
    hub = get_hub()
    watcher = hub.loop.io(fd, mask)
    try:
        while True:
            hub.wait(watcher)
            try:
                return call(fd, argument)
            except OSError as ex:
                if ex.errno not in ignored_errors:
                    raise
    finally:
        watcher.close()


if fcntl is not None:
    __implements__ += ["close"]
    __extensions__ += ["make_nonblocking", "nb_read", "nb_write"]

    #: Set to false to have :func:`close` treat regular files like all others.
    _NO_DEFER_REG_FILE = True

    #: Descriptors that are about to be closed; the event is set when they are.
    _closing_fd_to_event = {}

    # Modules of others are emptied before this one.
    _fcntl, _F_GETFD = fcntl.fcntl, fcntl.F_GETFD

    def _make_close(system_close):
        def close(fd):
            """Close *fd*, after telling the loop.

            If something still watches *fd*, it has to hear of the end before the kernel may give
            the number to another file: closing then happens in the next iteration of the loop.
            Otherwise, and for regular files, which nobody can wait for, it happens at once.
            """
            # When the interpreter ends, objects close what they own after it has emptied this
            # module, of which it begins with such names, from the first on.
            return (system_close if _core is None else _close_told)(fd)

        return close

    close = _make_close(_close)

    def _close_told(fd):
        _fcntl(fd, _F_GETFD)  # EBADF, if so
        hub = _get_hub()
        if hub is None or (S_ISREG(_fstat(fd).st_mode) and _NO_DEFER_REG_FILE):
            return _close(fd)
        loop = hub.loop

        if fd in _closing_fd_to_event:
            # The second time, and still open. Whoever uses the number next, be it to see that it
            # is gone, must find it closed: make the loop get there.
            closed = _closing_fd_to_event.pop(fd)
            with loop.idle() as watcher:
                hub.wait(watcher)
            closed.wait(0.001)
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

        if not loop.closing_fd(fd):
            return _close(fd)
        check = loop.check()
        closed = _closing_fd_to_event[fd] = Event()

        def finish(fd):
            check.stop()
            check.close()
            try:
                _close(fd)
            except OSError:
                # Somebody closed it by other means.
                pass
            finally:
                closed.set()
                _closing_fd_to_event.pop(fd, None)

        check.start(finish, fd)
        return None

    def make_nonblocking(fd):
        """Set ``O_NONBLOCK`` on *fd*. True if it was not set before."""
        flags = fcntl.fcntl(fd, fcntl.F_GETFL, 0)
        if flags & os.O_NONBLOCK:
            return None
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        return True

    def nb_read(fd, n):
        """Read up to *n* bytes from *fd*, which is non-blocking; wait if there are none yet.

        ``b''`` is the end of the file.
        """
        try:
            return _read(fd, n)
        except OSError as ex:
            if ex.errno not in ignored_errors:
                raise
        return _when_ready(fd, 1, _read, n)

    def nb_write(fd, buf):
        """Write to *fd*, which is non-blocking; wait until something of *buf* goes in.

        Returns how many bytes did.
        """
        try:
            return _write(fd, buf)
        except OSError as ex:
            if ex.errno not in ignored_errors:
                raise
        return _when_ready(fd, 2, _write, buf)


if hasattr(os, "fork"):
    _raw_fork = os.fork
    config.settings["fork_kill"].check()

    def _in_child():
        reinit()
        if config.fork_kill:
            _leave_only_current()

    def fork_gevent():
        """Fork, and make the child's hub usable before returning there.

        The loop may reap this child before anybody asks for its status. :func:`fork_and_watch`,
        which is what gets patched in as :func:`os.fork`, takes care of that.
        """
        with warnings.catch_warnings():
            # About threads that exist at the time: the hub's helpers, which the child replaces.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = _raw_fork()
        if not pid:
            _in_child()
        return pid

    def fork():
        """:func:`fork_gevent`, on systems that cannot watch children."""
        return fork_gevent()
else:
    __implements__.remove("fork")


if hasattr(os, "forkpty"):
    _raw_forkpty = os.forkpty
    __implements__.append("forkpty")
    __extensions__.append("forkpty_gevent")

    def forkpty_gevent():
        """:func:`fork_gevent` with a terminal: returns ``(pid, master_fd)``.

        The descriptor is an ordinary, blocking one.
        """
        pid, master_fd = _raw_forkpty()
        if not pid:
            _in_child()
        return pid, master_fd

    forkpty = forkpty_gevent


if hasattr(os, "fork") and hasattr(os, "WNOHANG"):
    __extensions__ += ["fork_and_watch", "fork_gevent"]
    _waitpid = os.waitpid
    _WNOHANG = os.WNOHANG

    def _on_child_hook():
        """Called after each death of a watched child. :mod:`gevent.signal` puts its own here."""

    #: By pid: the watcher of a running child, or ``(pid, status, time of death)``.
    _watched_children = {}

    #: Events of greenlets that are in :func:`waitpid`.
    _waiting = set()

    def _on_child(watcher, callback):
        watcher.stop()
        try:
            if _watched_children.get(watcher.pid) is watcher:
                # Else somebody who waited has the status already.
                _watched_children[watcher.pid] = (watcher.pid, watcher.rstatus, time.time())
            for died in _waiting:
                died.set()
            if callback:
                callback(watcher)
            _on_child_hook()
            _reap_children()
        finally:
            watcher.close()

    def _reap_children(timeout=60):
        """Forget children that died more than *timeout* seconds ago and that nobody asked for."""
        oldest = time.time() - timeout
        for pid, state in list(_watched_children.items()):
            if isinstance(state, tuple) and state[2] < oldest:
                del _watched_children[pid]

    def _first_to_die():
        """The pid of the watched child that has been dead for longest, or None."""
        dead = [state for state in _watched_children.values() if isinstance(state, tuple)]
        return min(dead, key=lambda state: state[2])[0] if dead else None

    def _child_watcher(loop, pid, ref):
        # In a native thread too. Any child (0) takes the signal, which is the default loop's.
        if loop.default or not pid:
            return loop.child(pid, ref=ref)
        return loop._child_anywhere(pid, ref)

    def _wait_for_death(loop, pid, status):
        """Wait until ``status(watcher)`` has an answer, with a watcher of *pid* (0 is any).

        The watcher alone would not do: the loop may know of a death before it, with the
        callback of the child's own watcher still to run.
        """
        died = Event()
        _waiting.add(died)
        try:
            with _child_watcher(loop, pid, True) as watcher:
                watcher.start(died.set)
                while (found := status(watcher)) is None:
                    died.wait()
                    died.clear()
                return found
        finally:
            _waiting.discard(died)

    def _status_of_any(watcher):
        pid = _first_to_die()
        if pid is not None:
            return _watched_children.pop(pid)[:2]
        if not watcher.rpid:
            return None
        _watched_children.pop(watcher.rpid, None)
        return watcher.rpid, watcher.rstatus

    def waitpid(pid, options):
        """Wait for a child; returns ``(pid, status)`` as :func:`os.waitpid` does.

        Only the calling greenlet waits, for one child or (with ``pid == -1`` and no options) for
        any. Process groups and ``WUNTRACED`` are left to the system, and may block or find the
        child reaped.
        """
        if pid == -1:
            pid = _first_to_die() or pid
        if pid == -1 and options == 0 and get_hub().loop.default:
            if not _watched_children:
                # None that we know of, so perhaps none at all, which is an error.
                found = _waitpid(pid, _WNOHANG)
                if found[0]:
                    return found
            return _wait_for_death(get_hub().loop, 0, _status_of_any)
        if pid not in _watched_children:
            if pid <= 0 or options or sys.is_finalizing() or _get_hub() is getcurrent():
                found = _waitpid(pid, options)
                if found[0] and not (os.WIFSTOPPED(found[1]) or os.WIFCONTINUED(found[1])):
                    # Its watcher hears of the end too, which is not to be told twice.
                    _watched_children.pop(found[0], None)
                return found
            # Somebody else's child, started by other means. From now on it is watched.
            found = _waitpid(pid, _WNOHANG)
            if found[0]:
                return found
            _watch_child(pid)

        state = _watched_children[pid]
        if isinstance(state, tuple):
            del _watched_children[pid]
            return state[:2]
        if state.loop is not get_hub().loop and hasattr(os, "pidfd_open"):
            if options & _WNOHANG:
                return _waitpid(pid, options)
            return _wait_elsewhere(pid, state)
        if options & _WNOHANG:
            return (0, 0)

        def status(watcher):
            now = _watched_children.get(pid)
            if isinstance(now, tuple):
                return _watched_children.pop(pid)[:2]
            for seen in (watcher, state):
                if seen.rpid:
                    _watched_children.pop(pid, None)
                    return seen.rpid, seen.rstatus
            return None

        return _wait_for_death(state.loop, pid, status)

    def _wait_elsewhere(pid, state):
        """Wait for a child that another thread's loop watches, which perhaps does not run."""
        died = Event()
        _waiting.add(died)
        try:
            while _watched_children.get(pid) is state:
                try:
                    pidfd = os.pidfd_open(pid)
                except ProcessLookupError:
                    # Reaped, by that loop: its callback is about to say so.
                    died.wait(0.05)
                    continue
                try:
                    with get_hub().loop.io(pidfd, 1) as watcher:
                        get_hub().wait(watcher)
                finally:
                    _close(pidfd)
                try:
                    found = _waitpid(pid, _WNOHANG)
                except ChildProcessError:
                    died.wait(0.05)
                    continue
                if found[0]:
                    _watched_children.pop(pid, None)
                    return found
            now = _watched_children.pop(pid, None)
            if isinstance(now, tuple):
                return now[:2]
            raise ChildProcessError(errno.ECHILD, os.strerror(errno.ECHILD))
        finally:
            _waiting.discard(died)

    def _watch_child(pid, callback=None, loop=None, ref=False):
        loop = loop or get_hub().loop
        watcher = _child_watcher(loop, pid, ref)
        before = _watched_children.get(pid)
        if before is not None and not isinstance(before, tuple):
            # By `posix_spawn`, which CPython's Popen uses from 3.13 on: one death, one event.
            before.stop()
            before.close()
        _watched_children[pid] = watcher
        watcher.start(_on_child, watcher, callback)

    def fork_and_watch(callback=None, loop=None, ref=False, fork=fork_gevent):
        """Fork, and have the parent's loop watch the child, so that :func:`waitpid` can tell.

        *callback* is called with the child's watcher when it dies. *loop* is whose watcher it is
        (the current hub's, by default); *ref* says if it keeps that loop running. *fork* does the
        forking; with the plain :func:`os.fork` the child cannot use gevent until it calls
        :func:`gevent.hub.reinit`.
        """
        (loop or get_hub().loop).install_sigchld()
        pid = fork()
        if pid:
            _watch_child(pid, callback, loop, ref)
        return pid

    if "forkpty" in __implements__:
        __extensions__.append("forkpty_and_watch")

        def forkpty_and_watch(callback=None, loop=None, ref=False, forkpty=forkpty_gevent):
            """:func:`fork_and_watch` with a terminal: returns ``(pid, master_fd)``."""
            forked = []

            def fork():
                forked.extend(forkpty())
                return forked[0]

            fork_and_watch(callback, loop, ref, fork)
            return tuple(forked)

    if config.disable_watch_children:
        __extensions__.append("waitpid")
    else:
        __implements__.append("waitpid")

        def fork(*args, **kwargs):
            """:func:`fork_and_watch`; :func:`fork_gevent` if ``GEVENT_NOWAITPID`` is set."""
            return fork_and_watch(*args, **kwargs)

        if "forkpty" in __implements__:

            def forkpty(*args, **kwargs):
                """:func:`forkpty_and_watch`; or :func:`forkpty_gevent`, as for :func:`fork`."""
                return forkpty_and_watch(*args, **kwargs)

        if hasattr(os, "posix_spawn"):
            __implements__ += ["posix_spawn", "posix_spawnp"]
            _raw_posix_spawn = os.posix_spawn
            _raw_posix_spawnp = os.posix_spawnp

            def posix_spawn(*args, **kwargs):
                """:func:`os.posix_spawn`, with the child watched as by :func:`fork_and_watch`."""
                get_hub().loop.install_sigchld()
                pid = _raw_posix_spawn(*args, **kwargs)
                _watch_child(pid)
                return pid

            def posix_spawnp(*args, **kwargs):
                """:func:`os.posix_spawnp`, with the child watched as by :func:`fork_and_watch`."""
                get_hub().loop.install_sigchld()
                pid = _raw_posix_spawnp(*args, **kwargs)
                _watch_child(pid)
                return pid


__imports__ = copy_globals(
    os, globals(), names_to_ignore=__implements__ + __extensions__, dunder_names_to_keep=()
)

__all__ = list(set(__implements__ + __extensions__))
