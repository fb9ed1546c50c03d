"""Which hub, hub class and loop the current native thread uses.

A hub is never created as a side effect of asking with `get_hub_if_exists`.
"""

import _thread

from gevent._core import hub_is_being_made

__all__ = [
    "get_hub",
    "get_hub_if_exists",
    "get_hub_noargs",
    "get_thread_ident",
]

# Imported before anything can be patched: this asks for the native thread, always. Modules that may
# be imported later take it from here, and not from `_thread`.
get_thread_ident = _thread.get_ident


class _Threadlocal(_thread._local):
    # Class attributes and not ones set by __init__: a thread-local's dictionary may already have
    # been cleared when a finalizer or a weak reference's callback asks for the hub.
    Hub = None
    loop = None
    hub = None


# Imported before anything can be patched, so this is the interpreter's own thread-local.
_threadlocal = _Threadlocal()

#: The class of hubs to come; `gevent.hub` sets it.
Hub = None


def get_hub_class():
    """Return the class for the current thread's hub, by default `gevent.hub.Hub`."""
    chosen = _threadlocal.Hub
    if chosen is None:
        chosen = _threadlocal.Hub = Hub
    return chosen


def set_default_hub_class(hubtype):
    """Make *hubtype* the class of hubs in threads that have made no choice."""
    global Hub
    Hub = hubtype


def get_hub():
    """Return the hub of the current thread, after creating it if there was none."""
    hub = _threadlocal.hub
    if hub is None:
        before = hub_is_being_made(True)
        try:
            hub = _threadlocal.hub = get_hub_class()()
        finally:
            hub_is_being_made(before)
    return hub


get_hub_noargs = get_hub


def get_hub_if_exists():
    """Return the hub of the current thread, or `None` if it has none yet."""
    return _threadlocal.hub


def set_hub(hub):
    """Make *hub*, which may be `None`, the hub of the current thread."""
    _threadlocal.hub = hub


def get_loop():
    """Return the loop that the next hub of this thread will take over, or `None`."""
    return _threadlocal.loop


def set_loop(loop):
    """Leave *loop* for the next hub of this thread."""
    _threadlocal.loop = loop
