"""Waiting for several descriptors at once: :func:`select` and :class:`poll`.

Both first ask the kernel without waiting, where errors are found as the standard library finds
them, and then park the calling greenlet on watchers of the loop.
"""

import select as __select__
import sys
from errno import EBADF

from gevent._util import _NONE, copy_globals
from gevent.event import Event
from gevent.hub import _get_hub_noargs as get_hub
from gevent.hub import sleep as _g_sleep

# Windows has no poll(2), but there is a poll() here all the same. A platform's own numbers
# replace these below.
POLLIN = 1
POLLPRI = 2
POLLOUT = 4
POLLERR = 8
POLLHUP = 16
POLLNVAL = 32

POLLRDNORM = 64
POLLRDBAND = 128
POLLWRNORM = 4
POLLWRBAND = 256

__implements__ = ["select"]
if hasattr(__select__, "poll"):
    __implements__.append("poll")
else:
    __extra__ = ["poll"]

__all__ = list(["error"] + __implements__)

error = __select__.error

__imports__ = copy_globals(__select__, globals(), names_to_ignore=__all__, dunder_names_to_keep=())

_EV_READ = 1
_EV_WRITE = 2

_real_original_select = __select__.select

if sys.platform.startswith("win32"):

    def _original_select(rlist, wlist, xlist, timeout):
        # Winsock refuses to wait for nothing.
        if not (rlist or wlist or xlist):
            return (), (), ()
        return _real_original_select(rlist, wlist, xlist, timeout)
else:
    _original_select = _real_original_select


def get_fileno(fileobj):
    """The descriptor of *fileobj*: itself if it is an int, else what its ``fileno()`` says.

    :raises ValueError: it has none, or a negative one.
    """
    fd = fileobj
    if not isinstance(fd, int):
        try:
            fd = int(fileobj.fileno())
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"Invalid file object: {fileobj!r}") from None
    if fd < 0:
        raise ValueError(f"Invalid file descriptor: {fd}")
    return fd


def _close_all(watchers):
    for watcher in watchers:
        watcher.stop()
        watcher.close()


class SelectResult:
    """One wait of :func:`select`."""

    __slots__ = ()

    def select(self, rlist, wlist, timeout):
        loop = get_hub().loop
        something = Event()
        readable, writable, watchers = [], [], []

        def on_ready(fileobj, watcher, found):
            found.append(fileobj)
            # At once, and not when the greenlet gets to run: the event may be that somebody is
            # about to close the descriptor, and a later stop() would find it gone.
            watcher.close()
            something.set()

        try:
            for fileobjs, mask, found in (
                (rlist, _EV_READ, readable),
                (wlist, _EV_WRITE, writable),
            ):
                for fileobj in fileobjs:
                    try:
                        watcher = loop.io(get_fileno(fileobj), mask)
                    except OSError as ex:
                        if ex.errno != EBADF:
                            raise
                        # Another thread has closed it since it was looked at. Nobody will have to
                        # wait for it to say so.
                        found.append(fileobj)
                        something.set()
                        continue
                    watcher.priority = loop.MAXPRI
                    watchers.append(watcher)
                    watcher.start(on_ready, fileobj, watcher, found)
            something.wait(timeout=timeout)
            return readable, writable, []
        finally:
            _close_all(watchers)


def select(rlist, wlist, xlist, timeout=None):
    """Wait until something in *rlist* can be read or in *wlist* written, *timeout* seconds at most.

    Takes and returns what :func:`select.select` does, and raises ``ValueError`` and ``OSError``
    for the same arguments. *xlist* is only looked at when the call begins.
    """
    if timeout is not None and timeout < 0:
        raise ValueError("timeout must be non-negative")

    # Used twice, so an iterator will not do.
    rlist = rlist if isinstance(rlist, (list, tuple)) else list(rlist)
    wlist = wlist if isinstance(wlist, (list, tuple)) else list(wlist)

    # Bad arguments are reported from here, in the kernel's and the interpreter's own words.
    ready = _original_select(rlist, wlist, xlist, 0)
    if any(ready) or timeout == 0:
        # A loop around this call must still let the others run.
        _g_sleep()
        return ready
    return SelectResult().select(rlist, wlist, timeout)


class PollResult:
    """What one :meth:`poll.poll` has heard so far."""

    __slots__ = ("event", "events")

    def __init__(self):
        self.events = set()
        self.event = Event()

    def add_event(self, events, fd):
        """Called by a watcher. A negative *events* means that its descriptor is no good."""
        if events < 0:
            flags = POLLNVAL
        else:
            flags = POLLIN if events & _EV_READ else 0
            flags |= POLLOUT if events & _EV_WRITE else 0
        self.events.add((fd, flags))
        self.event.set()

    def add_error_before_io(self, fd):
        """*fd* was bad before the wait began. The other descriptors are still waited for."""
        self.events.add((fd, POLLNVAL))


class poll:
    """:func:`select.poll`, for one greenlet at a time. There is one on every platform.

    ``POLLPRI`` is accepted and ignored.
    """

    def __init__(self):
        # Numbers only: many users forget to unregister, and a watcher left behind would stay
        # with the loop.
        self.fds = {}
        self.loop = get_hub().loop

    def register(self, fd, eventmask=_NONE):
        """Look for ``POLLIN`` and ``POLLOUT``, as far as *eventmask* has them, on *fd*.

        *fd* is a number or has a ``fileno()``. Registering it again replaces the mask.
        """
        if eventmask is _NONE:
            eventmask = POLLIN | POLLOUT
        flags = _EV_READ if eventmask & POLLIN else 0
        flags |= _EV_WRITE if eventmask & POLLOUT else 0
        self.fds[get_fileno(fd)] = flags

    def modify(self, fd, eventmask):
        """Replace the mask of *fd*."""
        self.register(fd, eventmask)

    def unregister(self, fd):
        """Forget *fd*.

        :raises KeyError: it was not registered.
        """
        del self.fds[get_fileno(fd)]

    def _get_started_watchers(self, poll_result):
        watchers = []
        try:
            for fd, flags in self.fds.items():
                try:
                    watcher = self.loop.io(fd, flags)
                except OSError as ex:
                    if ex.errno != EBADF:
                        raise
                    poll_result.add_error_before_io(fd)
                    continue
                watchers.append(watcher)
                watcher.priority = self.loop.MAXPRI
                watcher.start(poll_result.add_event, fd, pass_events=True)
        except BaseException:
            _close_all(watchers)
            raise
        return watchers

    def poll(self, timeout=None):
        """Wait *timeout* milliseconds; return a list of ``(fd, events)``.

        None or a negative number waits for as long as it takes. A closed descriptor is
        reported as ``POLLNVAL``.
        """
        if timeout is not None:
            timeout = timeout / 1000.0 if timeout >= 0 else None
        result = PollResult()
        watchers = self._get_started_watchers(result)
        try:
            result.event.wait(timeout=timeout)
            return list(result.events)
        finally:
            _close_all(watchers)


def _gevent_do_monkey_patch(patch_request):
    patch_request.default_patch_items()
    if patch_request.patch_kwargs["aggressive"]:
        # They would block every greenlet. Libraries fall back to select() without them.
        patch_request.remove_item("epoll", "kqueue", "kevent", "devpoll")
