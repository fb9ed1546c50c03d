"""A selector that lets other greenlets run: :class:`GeventSelector`, the :class:`DefaultSelector`.

The rest is the standard library's :mod:`selectors`.
"""

import selectors as __selectors__

from gevent._util import Lazy, copy_globals
from gevent.event import Event
from gevent.hub import _get_hub_noargs as get_hub
from gevent.hub import sleep
from gevent.select import _EV_READ, _EV_WRITE, poll, select

__implements__ = ["DefaultSelector"]
__extra__ = ["GeventSelector"]
__all__ = list(__implements__ + __extra__)

__imports__ = copy_globals(
    __selectors__,
    globals(),
    names_to_ignore=__all__ + ["select"],
    dunder_names_to_keep=("__all__",),
)

EVENT_READ = __selectors__.EVENT_READ
EVENT_WRITE = __selectors__.EVENT_WRITE
SelectorKey = __selectors__.SelectorKey

# The abstract base has no bookkeeping; every selector of the standard library builds on this.
_BaseSelectorImpl = getattr(__selectors__, "_BaseSelectorImpl", __selectors__.BaseSelector)


class GeventSelector(_BaseSelectorImpl):
    """A :class:`selectors.BaseSelector` on watchers of the hub's loop.

    Watchers live as long as their registration, so a file must be unregistered before it is
    closed, as the base class demands. A watcher is running from the :meth:`select` that first needs
    it until it fires: events that arrive between two calls are there for the second.
    """

    def __init__(self, hub=None):
        if hub is not None:
            self.hub = hub
        #: Running watchers by descriptor, and those that wait for the next select().
        self._active_watchers = {}
        self._inactive_watchers = {}
        #: Descriptor to ``EVENT_READ | EVENT_WRITE``, since the last select().
        self._accumulated_events = {}
        self._ready = Event()
        super().__init__()

    @Lazy
    def hub(self):
        return get_hub()

    def _on_event(self, events, fd):
        if events > 0:
            found = EVENT_READ if events & _EV_READ else 0
            found |= EVENT_WRITE if events & _EV_WRITE else 0
            self._accumulated_events[fd] = self._accumulated_events.get(fd, 0) | found
        self._ready.set()

    def register(self, fileobj, events, data=None):
        """Look for *events* on *fileobj*; return its :class:`SelectorKey`.

        :raises ValueError: bad events, or a bad descriptor.
        :raises KeyError: it is registered already.
        """
        key = super().register(fileobj, events, data)
        flags = _EV_READ if events & EVENT_READ else 0
        flags |= _EV_WRITE if events & EVENT_WRITE else 0
        loop = self.hub.loop
        try:
            watcher = loop.io(key.fd, flags)
        except OSError as ex:
            super().unregister(fileobj)
            raise ValueError("Invalid file descriptor") from ex
        watcher.priority = loop.MAXPRI
        self._inactive_watchers[key.fd] = watcher
        return key

    def unregister(self, fileobj):
        """Forget *fileobj* and whatever has happened to it; return its key."""
        key = super().unregister(fileobj)
        watcher = self._active_watchers.pop(key.fd, None) or self._inactive_watchers.pop(key.fd)
        watcher.stop()
        watcher.close()
        self._accumulated_events.pop(key.fd, None)
        return key

    def select(self, timeout=None):
        """Wait *timeout* seconds (None: for ever) and return a list of ``(key, events)``.

        Zero or less does not wait, but always lets other greenlets run.
        """
        if timeout is not None and timeout < 0:
            timeout = 0

        for fd, watcher in self._inactive_watchers.items():
            watcher.start(self._on_event, fd, pass_events=True)
        self._active_watchers.update(self._inactive_watchers)
        self._inactive_watchers.clear()

        if self._ready.is_set():
            sleep()
        self._ready.wait(timeout)
        self._ready.clear()

        result = []
        for fd, events in self._accumulated_events.items():
            # Nobody may come back to read what is there, and a running watcher would then keep
            # the loop from ever sleeping.
            watcher = self._active_watchers.pop(fd)
            watcher.stop()
            self._inactive_watchers[fd] = watcher
            key = self._fd_to_key[fd]
            result.append((key, events & key.events))
        self._accumulated_events.clear()
        return result

    def close(self):
        for watchers in (self._active_watchers, self._inactive_watchers):
            for watcher in (watchers or {}).values():
                watcher.stop()
                watcher.close()
        self._active_watchers = self._inactive_watchers = None
        self._accumulated_events = None
        self.hub = None
        super().close()


DefaultSelector = GeventSelector


def _gevent_do_monkey_patch(patch_request):
    patch_request.default_patch_items()

    # These took their system call from `select` when they were defined, patched or not. As an
    # attribute of a class a builtin is not bound as a method; a Python function is, and needs a
    # wrapper.
    selector = __selectors__.SelectSelector
    if getattr(selector, "_select", None) in (
        select,
        patch_request.get_original("select", "select"),
    ):

        def _select(self, *args, **kwargs):
            return select(*args, **kwargs)

        _select._gevent_monkey = True
        selector._select = _select

    if hasattr(getattr(__selectors__, "PollSelector", None), "_selector_cls"):
        __selectors__.PollSelector._selector_cls = poll

    if patch_request.patch_kwargs["aggressive"]:
        # They are made of functions that gevent.select removes.
        patch_request.remove_item(
            __selectors__, "EpollSelector", "KqueueSelector", "DevpollSelector"
        )
        __selectors__.DefaultSelector = DefaultSelector
