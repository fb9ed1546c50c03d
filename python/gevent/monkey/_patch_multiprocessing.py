"""Making :mod:`multiprocessing` cooperative, once a program imports it.

Its pools and queues have threads of the parent read and write pipes, and take semaphores of the
system, which block natively: with greenlets for threads, the first of them would stop all. What is
replaced: how a connection reads and writes, how a semaphore is acquired, and that in a forked child
the parent's greenlets go on. The processes themselves are started as ever.
"""

import gc
import os
import select
import stat
import sys
import threading
from time import monotonic

from gevent._hub_local import get_hub_if_exists
from gevent.hub import _leave_only_current, getcurrent, sleep

from ._after_import import after_import
from .api import get_original, patch_item

_poll = get_original("select", "poll")
_read = os.read
_write = os.write

_EV_READ = 1
_EV_WRITE = 2

#: Bytes that a pipe takes without blocking when the kernel says that it can be written to.
_PIPE_PART = getattr(select, "PIPE_BUF", 512)
#: The same of a socket, whose kernel says so only when most of its buffer is free.
_SOCKET_PART = 32 * 1024

#: ``kind`` of a lock that its owner may take again.
_RECURSIVE = 0

_FIRST_PAUSE = 0.0002
_LONGEST_PAUSE = 0.01


def _hub():
    """The hub to wait with; None where there is none, or the hub itself runs."""
    try:
        current = getcurrent()
    except RuntimeError:
        # So late in the interpreter's shutdown that there are no greenlets any more.
        return None
    hub = get_hub_if_exists()
    return None if hub is None or hub.loop is None or current is hub else hub


def _nothing_else(loop):
    """Whether no other greenlet could want to run meanwhile."""
    return not (loop.activecnt or loop.queued or loop.statistics["watchers"])


def _wait(hub, fd, mask, flags):
    """Wait until *fd*, which blocks, will not."""
    poll = _poll()
    poll.register(fd, flags)
    if not poll.poll(0):
        with hub.loop.io(fd, mask) as watcher:
            hub.wait(watcher)


def read(fd, size):
    """:func:`os.read` from a blocking descriptor, with only the calling greenlet waiting."""
    hub = _hub()
    if hub is not None:
        _wait(hub, fd, _EV_READ, select.POLLIN)
    return _read(fd, size)


def write(fd, data):
    """:func:`os.write` to a blocking descriptor, with only the calling greenlet waiting."""
    hub = _hub()
    if hub is None:
        return _write(fd, data)
    _wait(hub, fd, _EV_WRITE, select.POLLOUT)
    if len(data) > _PIPE_PART:
        is_socket = stat.S_ISSOCK(os.fstat(fd).st_mode)
        data = memoryview(data)[: _SOCKET_PART if is_socket else _PIPE_PART]
    return _write(fd, data)


def _semaphore_class(native):
    """A cooperative subclass of ``_multiprocessing.SemLock``."""

    class SemLock(native):
        #: Of a recursive lock: the greenlet that has it. The base knows only threads.
        _owner = None

        def acquire(self, block=True, timeout=None):
            """Acquire it, with only the calling greenlet waiting.

            There is nothing in the system to wait for a semaphore with, besides blocking.
            """
            if self._try():
                return True
            if not block:
                return False
            hub = _hub()
            if hub is None or _nothing_else(hub.loop):
                taken = native.acquire(self, True, timeout)
                self._owner = getcurrent() if taken else None
                return taken
            end = None if timeout is None else monotonic() + max(timeout, 0)
            pause = _FIRST_PAUSE
            while True:
                left = pause if end is None else end - monotonic()
                if left <= 0:
                    return False
                sleep(min(pause, left))
                if self._try():
                    return True
                pause = min(pause * 1.5, _LONGEST_PAUSE)

        def _try(self):
            me = getcurrent()
            if self.kind == _RECURSIVE and self._is_mine() and self._owner is not me:
                return False
            taken = native.acquire(self, False)
            if taken:
                self._owner = me
            return taken

        def __enter__(self):
            return self.acquire()

    return SemLock


def _patch_synchronize(module):
    native = module._multiprocessing.SemLock
    if not getattr(native, "_gevent_monkey", False):
        cooperative = _semaphore_class(native)
        cooperative._gevent_monkey = True
        patch_item(module._multiprocessing, "SemLock", cooperative)


def _patch_connection(module):
    connection = module.Connection
    init, receive, send = connection.__init__, connection._recv, connection._send
    if hasattr(init, "_gevent_monkey"):
        return

    def __init__(self, handle, *args, **kwargs):
        # It may come from one of our sockets. The other side of it may be a process that knows
        # nothing of that.
        try:
            os.set_blocking(handle, True)
        except OSError:
            # Not a descriptor, which is found out when it is used.
            pass
        init(self, handle, *args, **kwargs)

    def _recv(self, size, read=read):
        return receive(self, size, read)

    def _send(self, buf, write=write):
        return send(self, buf, write)

    __init__._gevent_monkey = True
    connection.__init__, connection._recv, connection._send = __init__, _recv, _send


def _patch_queues(module):
    # Of those that exist already: what they share with the thread that will feed their pipe.
    for made in gc.get_objects():
        if issubclass(type(made), module.Queue) and getattr(made, "_thread", made) is None:
            made._notempty = threading.Condition(threading.Lock())


def _patch_util(module):
    # Called in the child before anything of the program.
    module.register_after_fork(_leave_only_current, lambda call: call())


def patch():
    """Do it all, each part when its module is imported."""
    after_import("multiprocessing.connection", _patch_connection)
    after_import("multiprocessing.synchronize", _patch_synchronize)
    if "multiprocessing.queues" in sys.modules:
        _patch_queues(sys.modules["multiprocessing.queues"])
    after_import("multiprocessing.util", _patch_util)
