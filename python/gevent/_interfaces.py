"""What the loop, its watchers and its callbacks promise, as zope interfaces.

For documentation and for tests, which verify the native classes against these.
"""

import sys

from zope.interface import Attribute, Interface

try:
    from zope import schema
except ImportError:

    class _Field(Attribute):
        """A described attribute, for when zope.schema is not installed."""

        __allowed_kw__ = ("readonly", "min")

        def __init__(self, description, required=False, **kwargs):
            unknown = sorted(set(kwargs).difference(self.__allowed_kw__))
            if unknown:
                raise TypeError(f"Unexpected keyword arguments: {unknown!r}")
            super().__init__(f"{description} (required? {required})")

    class schema:
        Bool = _Field
        Float = _Field


__all__ = [
    "ICallback",
    "ILoop",
    "IWatcher",
]


class ILoop(Interface):
    """An event loop. It belongs to one thread, and only `run_callback_threadsafe` is for others.

    The methods named after watchers return an `IWatcher` that is not started yet. Of their
    common arguments, *ref* says whether the loop runs on for this watcher's sake, and *priority*
    orders callbacks that are due in the same iteration.
    """

    default = schema.Bool(
        description="Whether this is the default loop, the one that owns signals",
        required=True,
        readonly=True,
    )

    approx_timer_resolution = schema.Float(
        description="About the shortest time, in seconds, that a timer can measure",
        required=True,
        min=0.0,
        readonly=True,
    )

    def run(nowait=False, once=False):
        """Run the loop until nothing referenced is left, for one iteration, or without waiting.

        The hub does this. It is for programs that drive the loop themselves.
        """

    def now():
        """Return the loop's time in seconds. It does not move within an iteration."""

    def update_now():
        """Bring the loop's time up to date."""

    def destroy():
        """Release the loop's descriptors and memory. It must not be used afterwards."""

    def io(fd, events, ref=True, priority=None):
        """Watch *fd* for being readable (1), writable (2) or either (3)."""

    def closing_fd(fd):
        """Say that *fd* is about to be closed.

        Returns whether callbacks of watchers on it were queued; if so the caller should close
        the descriptor after they ran.
        """

    def timer(after, repeat=0.0, ref=True, priority=None):
        """Fire *after* seconds from now, then every *repeat* seconds unless that is 0."""

    def signal(signum, ref=True, priority=None):
        """Watch for the signal *signum*."""

    def idle(ref=True, priority=None):
        """Fire in each iteration in which nothing of the same or a higher priority is due."""

    def prepare(ref=True, priority=None):
        """Fire before the loop waits for events."""

    def check(ref=True, priority=None):
        """Fire after the loop has waited for events."""

    def fork(ref=True, priority=None):
        """Fire in the child process after a fork."""

    def async_(ref=True, priority=None):
        """Fire after ``send`` was called, in any thread."""

    if sys.platform != "win32":

        def child(pid, trace=0, ref=True):
            """Watch the child process *pid*, or any child if *pid* is 0."""

    def stat(path, interval=0.0, ref=True, priority=None):
        """Watch what :func:`os.stat` says about *path*, at least every *interval* seconds."""

    def run_callback(func, *args):
        """Run ``func(*args)`` in the hub soon, and return an `ICallback`.

        Only for the thread that runs the loop: another thread's callback might wait until the
        loop wakes for a reason of its own.
        """

    def run_callback_threadsafe(func, *args):
        """Like `run_callback`, from any thread; the loop is woken."""


class IWatcher(Interface):
    """Calls a function in the hub when something happened."""

    def start(callback, *args, **kwargs):
        """Begin to watch; each event calls ``callback(*args)``.

        Some kinds of watcher take keyword arguments of their own.
        """

    def stop():
        """Stop watching. The watcher can be started again."""

    def close():
        """Stop watching and release the watcher's resources, for good."""


class ICallback(Interface):
    """A function that the hub will call once. It must not block."""

    pending = schema.Bool(
        description="Whether the function is still to be called",
        readonly=True,
    )

    def stop():
        """Do not call the function, if it has not been called yet."""

    def close():
        """The same as `stop`."""
