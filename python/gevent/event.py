"""`Event`, which can be set and cleared, and `AsyncResult`, which is set once with a value.

Both are native. What an `AsyncResult` does with exceptions and their tracebacks is done here.
"""

from gevent._compat import reraise
from gevent._core import AsyncResult, Event
from gevent._tblib import NO_TRACEBACK, dump_traceback, load_traceback

__all__ = [
    "AsyncResult",
    "Event",
]


def _dumped(exception, exc_info):
    """Return what an `AsyncResult` keeps of an exception."""
    kind, exception, traceback = exc_info or (type(exception), exception, None)
    # As bytes, or the frames and all their variables would live as long as the result.
    try:
        dumped = dump_traceback(traceback)
    except Exception:
        # No descriptor or memory for it is left. Who waits still has to hear of the exception.
        dumped = NO_TRACEBACK
    return (kind, exception, dumped)


def _loaded(exc_info):
    """Return `_dumped` information as of :func:`sys.exc_info`."""
    kind, exception, traceback = exc_info
    return (kind, exception, load_traceback(traceback))


def _raise_exception(result):
    reraise(*result.exc_info)


def _take_exception(result, source):
    """Take over the exception of what *result* was linked to."""
    result.set_exception(source.exception, getattr(source, "exc_info", None))
