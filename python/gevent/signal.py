"""A :mod:`signal` whose ``SIGCHLD`` works together with :mod:`gevent.os`.

The loop owns the process's real ``SIGCHLD``. A handler set here for it runs when a child of
:func:`gevent.os.fork` dies, in a greenlet of its own, and so may block. Every other signal is the
standard library's business. Patched in only if :func:`gevent.os.waitpid` is (see there).
"""

import errno
import operator
import os as _os
import signal as _signal
import sys

import gevent.os
from gevent._hub_local import get_thread_ident
from gevent._util import _NONE as _INITIAL
from gevent._util import copy_globals

__implements__ = []
__extensions__ = []

_child_handler = _INITIAL
_child_wakeup_fd = -1
_child_wakeup_fd_warn_on_full_buffer = None

_signal_signal = _signal.signal
_signal_getsignal = _signal.getsignal


def getsignal(signalnum):
    """:func:`signal.getsignal`; for ``SIGCHLD``, what :func:`signal` of this module was given."""
    global _child_handler
    if signalnum != _signal.SIGCHLD:
        return _signal_getsignal(signalnum)
    if _child_handler is _INITIAL:
        _child_handler = _signal_getsignal(_signal.SIGCHLD)
    return _child_handler


def signal(signalnum, handler):
    """:func:`signal.signal`; for ``SIGCHLD``, see this module's description.

    ``SIG_IGN`` and ``SIG_DFL`` do take ``SIGCHLD`` away from the loop, until it next watches a
    child.
    """
    global _child_handler
    if signalnum != _signal.SIGCHLD:
        return _signal_signal(signalnum, handler)

    passive = handler in (_signal.SIG_IGN, _signal.SIG_DFL)
    if not passive and not callable(handler):
        raise TypeError(
            "signal handler must be signal.SIG_IGN, signal.SIG_DFL, or a callable object"
        )

    old_handler = getsignal(signalnum)
    _child_handler = handler
    if passive:
        from gevent.hub import get_hub

        _signal_signal(signalnum, handler)
        get_hub().loop.reset_sigchld()
    return old_handler


def set_wakeup_fd(fd, /, *, warn_on_full_buffer=True):
    """:func:`signal.set_wakeup_fd`; *fd* also gets a byte for each ``SIGCHLD`` handled here."""
    global _child_wakeup_fd, _child_wakeup_fd_warn_on_full_buffer
    old_fd = _signal.set_wakeup_fd(fd, warn_on_full_buffer=warn_on_full_buffer)
    _child_wakeup_fd = fd
    _child_wakeup_fd_warn_on_full_buffer = warn_on_full_buffer
    return old_fd


def _native_thread(number):
    """The identifier of the native thread of a greenlet that goes by *number*, or None."""
    from gevent.hub import Hub, getcurrent

    def root(greenlet):
        while greenlet.parent is not None:
            greenlet = greenlet.parent
        return greenlet

    me = getcurrent()
    here = root(me)
    if number in (id(me), id(here)):
        return get_thread_ident()

    import gc

    from greenlet import greenlet as RawGreenlet

    # By type: an object may pretend to be of any class, and would be asked for it.
    objects = [ob for ob in gc.get_objects() if issubclass(type(ob), RawGreenlet)]
    for found in objects:
        if id(found) == number:
            break
    else:
        return None
    there = root(found)
    if found.dead:
        return None
    if there is here:
        return get_thread_ident()
    for hub in objects:
        if issubclass(type(hub), Hub) and hub.parent is there:
            return hub.thread_ident
    return None


if hasattr(_signal, "pthread_kill"):
    _signal_pthread_kill = _signal.pthread_kill

    def pthread_kill(thread_id, signalnum, /):
        """:func:`signal.pthread_kill`. For the number of a greenlet, its thread gets the signal.

        So it is for what :func:`threading.get_ident` returns once that is patched.
        """
        if operator.index(thread_id) not in sys._current_frames():
            # Anything else than a thread's identifier would be used as an address.
            thread_id = _native_thread(thread_id)
            if thread_id is None:
                raise ProcessLookupError(errno.ESRCH, _os.strerror(errno.ESRCH))
        _signal_pthread_kill(thread_id, signalnum)

    __implements__ += ["pthread_kill"]


def _write_child_signal_fd(fd, warn_on_full_buffer):
    try:
        gevent.os._write(fd, bytes((_signal.SIGCHLD,)))
    except OSError as ex:
        if warn_on_full_buffer or ex.errno not in gevent.os.ignored_errors:
            from gevent.hub import get_hub

            get_hub().handle_error("set_wakeup_fd", None, None, None)


def _on_child_hook():
    # In the hub, which may not block; a handler may.
    if not callable(_child_handler):
        return
    from gevent import Greenlet

    if _child_wakeup_fd >= 0:
        Greenlet(
            _write_child_signal_fd, _child_wakeup_fd, _child_wakeup_fd_warn_on_full_buffer
        ).switch()
    Greenlet(_child_handler, _signal.SIGCHLD, None).switch()


if "waitpid" in gevent.os.__implements__ and hasattr(_signal, "SIGCHLD"):
    gevent.os._on_child_hook = _on_child_hook
    __implements__ += ["signal", "getsignal", "set_wakeup_fd"]
else:
    __extensions__ += ["signal", "getsignal", "set_wakeup_fd"]

__imports__ = copy_globals(
    _signal, globals(), names_to_ignore=__implements__ + __extensions__, dunder_names_to_keep=()
)

__all__ = list(__implements__ + __extensions__)
