"""The exceptions that the hub, the waiters and the objects bound to a hub raise."""

from greenlet import GreenletExit

__all__ = [
    "LoopExit",
]


_MOST_SHOWN = 50


def _root(greenlet):
    """Return the greenlet's farthest parent: the main greenlet of its thread."""
    while greenlet.parent is not None:
        greenlet = greenlet.parent
    return greenlet


def _waiting_greenlets(hub):
    """Return a line for each greenlet of the thread of *hub* that waits, and what it has called.

    The main greenlet is not among them: it gets the exception.
    """
    import linecache
    import os

    from gevent._greenlet_primitives import get_reachable_greenlets

    here = os.path.dirname(os.path.abspath(__file__)) + os.sep
    main = hub.parent
    lines = []
    for greenlet in get_reachable_greenlets():
        if not greenlet or greenlet is hub or greenlet is main or _root(greenlet) is not main:
            continue
        if len(lines) == _MOST_SHOWN:
            lines.append("...")
            break
        frame = inner = greenlet.gr_frame
        while frame is not None and frame.f_code.co_filename.startswith(here):
            frame = frame.f_back
        frame = frame or inner
        if frame is None:
            # It was started with a native function, such as the `get` of a queue.
            lines.append(f"{greenlet!r} in native code")
            continue
        file, number = frame.f_code.co_filename, frame.f_lineno
        call = linecache.getline(file, number).strip()
        where = f"{frame.f_code.co_name}, {file}:{number}"
        lines.append(f"{greenlet!r} in {where}" + (f": {call}" if call else ""))
    return lines


class LoopExit(Exception):
    """The event loop has nothing left that could wake the greenlet that waits.

    It is raised in the greenlet that created the hub when `gevent.hub.Hub.run` comes to its end.
    Usually this means a deadlock, for instance a lock that nobody will release any more, or an
    object whose events belong to another thread's hub.

    When the hub raised it, the arguments are a message, the hub and the loop's handles. The text
    shows all three, and the greenlets that wait when it is made, each with where it waits.
    """

    @property
    def hub(self):
        """The hub that raised this exception, or `None`."""
        return self.args[1] if len(self.args) == 3 else None

    def __repr__(self):
        if len(self.args) != 3:
            return super().__repr__()
        # Half of what `import gevent` would cost.
        from pprint import pformat

        message, hub, handles = self.args
        text = f"{message}\n\tHub: {hub}\n\tHandles:\n{pformat(handles)}"
        waiting = _waiting_greenlets(hub)
        return f"{text}\n\tWaiting:\n" + "\n".join(waiting) if waiting else text

    def __str__(self):
        return repr(self)


class BlockingSwitchOutError(AssertionError):
    """A callback of the event loop called a function that blocks.

    Callbacks run in the hub, and while the hub waits nothing can wake it. Spawn a greenlet
    for the work instead.
    """


class InvalidSwitchError(AssertionError):
    """A greenlet was woken by something other than what it was waiting for."""


class ConcurrentObjectUseError(AssertionError):
    """A greenlet waits on an object on which another greenlet is waiting already.

    Raised for objects that keep one waiter only, such as one direction of a socket.
    """


class InvalidThreadUseError(RuntimeError):
    """An object that belongs to one thread's hub was used from another thread.

    Loops, watchers and thread pools belong to the thread of their hub. The cases that would
    damage the loop are checked and raise this.
    """


class HubDestroyed(GreenletExit):
    """Thrown into a hub so that it leaves its loop now. For gevent's own use.

    It is recognised by its exact type, so it must not be subclassed.
    """

    def __init__(self, destroy_loop):
        super().__init__(destroy_loop)
        self.destroy_loop = destroy_loop
