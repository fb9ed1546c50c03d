"""Timeouts: exceptions that are raised in a greenlet after a time. They work where it blocks."""

from gevent import _core
from gevent._util import _NONE

__all__ = [
    "Timeout",
    "with_timeout",
]

Timeout = _core.Timeout
_FakeTimer = _core._FakeTimer


def _reduced(timeout):
    """What copies and pickles of *timeout* are made of. Its timer stays with it."""
    import copyreg

    state = {
        **timeout.__dict__,
        "args": timeout.args,
        "seconds": timeout.seconds,
        "exception": timeout.exception,
    }
    return copyreg.__newobj__, (type(timeout),), state


def with_timeout(seconds, function, *args, **kwds):
    """
    Call *function*, for at most so many seconds.

    After that, return the keyword argument *timeout_value* if it was given, else raise `Timeout`.
    """
    timeout_value = kwds.pop("timeout_value", _NONE)
    timeout = Timeout.start_new(seconds, _one_shot=True)
    try:
        return function(*args, **kwds)
    except Timeout as ex:
        if ex is timeout and timeout_value is not _NONE:
            return timeout_value
        raise
    finally:
        timeout.cancel()
