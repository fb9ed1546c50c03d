"""The class of event loops: the native one, and around it what is called rarely."""

import signal
import sys
import traceback
import warnings

from zope.interface import classImplements

from gevent import _core
from gevent._interfaces import ICallback, ILoop
from gevent.exceptions import HubDestroyed

__all__ = ["loop"]


# As they are before anything is patched.
_getsignal, _signal = signal.getsignal, signal.signal
_SIG_IGN, _SIG_DFL, _SIGCHLD = signal.SIG_IGN, signal.SIG_DFL, getattr(signal, "SIGCHLD", None)

_FLAG_NAMES = ("noenv", "forkcheck", "noinotify", "signalfd", "nosigmask")
_BACKEND_INTS = {"select": 0x01, "poll": 0x02, "epoll": 0x04, "kqueue": 0x08, "uring": 0x80}
# libev's portable backends; what they ask for, a loop that works, every loop here gives.
_PORTABLE = ("poll", "select")


def _names(flags):
    """Return the loops that *flags* ask for, in order of preference, and their alias if any."""
    from gevent import _config
    from gevent.core import _flags_to_int, _flags_to_list

    if flags is None:
        return list(_config.loop_preference()), None
    if isinstance(flags, int):
        flags = _flags_to_list(flags & 0xFF)
    elif isinstance(flags, str):
        flags = flags.split(",")
    wanted, alias = [], None
    for name in flags:
        name = name.strip().lower()
        if name in _core.loop_names():
            wanted.append(name)
        elif name == "linux_iouring":
            wanted.append("uring")
        elif name in _FLAG_NAMES or not name:
            continue
        elif name in _PORTABLE:
            alias = alias or name
        else:
            _flags_to_int(name)  # a ValueError if there is no such name
            wanted.append("auto")
    if wanted:
        return wanted, None
    return list(_config.loop_preference()), alias


class loop(_core.Loop):
    """An event loop: a reactor over epoll, io_uring or kqueue.

    *flags* name the backends to try, as a string with commas, a list, or libev's numbers; None
    leaves the choice to :attr:`gevent.config.loop <gevent._config.Config.loop>`. A *default* loop
    may watch child processes.
    """

    approx_timer_resolution = 0.00001
    CALLBACK_CHECK_COUNT = 50
    MAXPRI = 2
    MINPRI = -2

    def __new__(cls, flags=None, default=None):
        if default is None:
            default = True
        names, alias = _names(flags)
        self = super().__new__(cls, names, bool(default))
        self._made_with = flags
        self._alias = alias
        self.set_switch_interval(sys.getswitchinterval())
        return self

    def __init__(self, flags=None, default=None):
        # All was done by __new__.
        pass

    @property
    def sigfd(self):
        """The signalfd of libev's loop. There is none here, so this is an `AttributeError`."""
        raise AttributeError("sigfd")

    # Watchers

    WatcherType = _core.watcher

    def io(self, fd, events, ref=True, priority=None):
        """Return a watcher of a descriptor: *events* are 1 (read), 2 (write) or both."""
        return _core.io(self, fd, events, ref, priority)

    def timer(self, after, repeat=0.0, ref=True, priority=None):
        """Return a watcher that fires after *after* seconds, and then each *repeat* seconds."""
        return _core.timer(self, after, repeat, ref, priority)

    def signal(self, signum, ref=True, priority=None):
        """Return a watcher of a signal."""
        return _core.signal(self, signum, ref, priority)

    def idle(self, ref=True, priority=None):
        """Return a watcher that fires when nothing else is pending."""
        return _core.idle(self, ref, priority)

    def prepare(self, ref=True, priority=None):
        """Return a watcher that fires before the loop waits."""
        return _core.prepare(self, ref, priority)

    def check(self, ref=True, priority=None):
        """Return a watcher that fires after the loop has waited."""
        return _core.check(self, ref, priority)

    def fork(self, ref=True, priority=None):
        """Return a watcher that fires in a forked child."""
        return _core.fork(self, ref, priority)

    def async_(self, ref=True, priority=None):
        """Return a watcher that other threads can make fire."""
        return _core.async_(self, ref, priority)

    locals()["async"] = async_

    def child(self, pid, trace=0, ref=True):
        """Return a watcher of a child process; only on a default loop."""
        return _core.child(self, pid, trace, ref)

    def _child_anywhere(self, pid, ref=True):
        """The same for one child, on any loop; needs a kernel with pidfds, as Linux 5.4 has."""
        return _core.child(self, pid, 0, ref, anywhere=True)

    def stat(self, path, interval=0.0, ref=True, priority=None):
        """Return a watcher of the attributes of a path."""
        return _core.stat(self, path, interval, ref, priority)

    def callback(self, priority=None):
        """Return a callback that is not queued."""
        return _core.callback(priority, ())

    def install_sigchld(self):
        """See to it that the system keeps the status of children.

        While SIGCHLD is ignored it drops them. Watchers install all else that they need.
        """
        if _SIGCHLD is not None and _getsignal(_SIGCHLD) == _SIG_IGN:
            try:
                _signal(_SIGCHLD, _SIG_DFL)
            except ValueError:  # another thread may not
                _core.stop_ignoring_children()

    def reset_sigchld(self):
        """The opposite of `install_sigchld`; this does nothing."""

    def verify(self):
        """Do nothing: the loop has no self-check that could be run from here."""

    def update(self):
        """Use `update_now`."""
        warnings.warn("'update' is deprecated; use 'update_now'", DeprecationWarning, stacklevel=2)
        self.update_now()

    # Errors

    def handle_error(self, context, type, value, tb):
        """Pass an error of a callback to the error handler, or else print it and end the run."""
        if type is HubDestroyed:
            self.break_()
            return
        handler = self.error_handler
        if handler is None:
            self._default_handle_error(context, type, value, tb)
            return
        # Looked up each time, so that a hub's `handle_error` can be replaced at any moment.
        getattr(handler, "handle_error", handler)(context, type, value, tb)

    def _default_handle_error(self, context, type, value, tb):
        traceback.print_exception(type, value, tb)
        self.break_()

    # Looks

    @property
    def backend(self):
        """The same as `name`, or libev's name by which the loop was asked for: poll or select."""
        return self._alias or self.name

    @property
    def backend_int(self):
        """The backend by libev's number."""
        return _BACKEND_INTS.get(self.backend, 0)

    @property
    def origflags_int(self):
        """What the loop was made with, as libev's numbers."""
        from gevent.core import _flags_to_int

        made_with = self._made_with
        return made_with if isinstance(made_with, int) else _flags_to_int(made_with)

    @property
    def origflags(self):
        """What the loop was made with, as a list of names."""
        from gevent.core import _flags_to_list

        return _flags_to_list(self.origflags_int)

    @property
    def sig_pending(self):
        """Whether a signal waits to be dispatched: never seen from outside."""
        return 0

    def _format(self):
        if self.destroyed:
            return "destroyed"
        text = self.backend
        if self.default:
            text += " default"
        text += f" pending={self.pendingcnt}"
        return text + self._format_details()

    def _format_details(self):
        text = f" ref={self.activecnt}"
        fileno = self._known_fileno
        if fileno is not None:
            text += f" fileno={fileno}"
        return text

    def __repr__(self):
        return f"<{self.__class__.__name__} at 0x{id(self):x} {self._format()}>"


classImplements(loop, ILoop)
classImplements(_core.callback, ICallback)
