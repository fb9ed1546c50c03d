"""`Event`, which can be set and cleared, and `AsyncResult`, which is set once with a value."""

from gevent._abstract_linkable import AbstractLinkable
from gevent._compat import reraise
from gevent._tblib import dump_traceback, load_traceback
from gevent._util import _NONE
from gevent.timeout import Timeout

__all__ = [
    "AsyncResult",
    "Event",
]


class Event(AbstractLinkable):
    """A flag that greenlets and threads can wait for, like `threading.Event`.

    Greenlets that wait are woken in the order in which they came. A greenlet that finds the
    event set while others are being woken runs after them. The event may be cleared again before
    they run: `wait` tells that it was set at some time while they waited.

    All methods may be called from any native thread, with a hub or without.
    """

    __slots__ = ("_flag",)

    def __init__(self):
        super().__init__()
        self._flag = False

    def __str__(self):
        return "<%s.%s at 0x%x %s _links[%s]>" % (
            type(self).__module__,
            type(self).__name__,
            id(self),
            "set" if self._flag else "clear",
            self.linkcount(),
        )

    def is_set(self):
        """Return whether the event is set."""
        return self._flag

    isSet = is_set

    def ready(self):
        """Return whether the event is set."""
        return self._flag

    def set(self):
        """Set the event and wake everyone who waits for it."""
        self._saw_thread()
        self._flag = True
        self._check_and_notify()

    def clear(self):
        """Clear the event; from now on `wait` blocks."""
        self._flag = False

    def _wait_return_value(self, waited, wait_success):
        # After a wait the flag says nothing: it may have been set and cleared again.
        return wait_success if waited else True

    def wait(self, timeout=None):
        """Block until the event is set.

        Returns true if it was set when the call began or while it waited, and false only if
        *timeout*, in seconds, passed before.
        """
        return self._wait(timeout)

    def _reset_internal_locks(self):
        """Do nothing; `threading.Event` once had this method for the child of a fork."""


class AsyncResult(AbstractLinkable):
    """A value or an exception that will be known later.

    `set` and `set_exception` store it and wake those who wait; `get` returns or raises it::

        >>> from gevent.event import AsyncResult
        >>> result = AsyncResult()
        >>> result.set(100)
        >>> result.get()
        100

    It can be linked to a greenlet, and then holds that greenlet's result::

        >>> import gevent
        >>> result = AsyncResult()
        >>> gevent.spawn(lambda: 1/0).link(result)
        >>> try:
        ...     result.get()
        ... except ZeroDivisionError:
        ...     print('ZeroDivisionError')
        ZeroDivisionError

    Those who wait are woken in the order in which they came. All methods may be called from any
    native thread, with a hub or without.
    """

    __slots__ = ("_exc_info", "_imap_task_index", "_value")

    def __init__(self):
        super().__init__()
        self._value = _NONE
        self._exc_info = ()

    @property
    def _exception(self):
        return self._exc_info[1] if self._exc_info else _NONE

    @property
    def value(self):
        """The value, or `None` as long as there is none."""
        return None if self._value is _NONE else self._value

    @property
    def exc_info(self):
        """Type, exception and traceback that were stored, or ``()``."""
        if not self._exc_info:
            return ()
        kind, exception, traceback = self._exc_info
        return (kind, exception, load_traceback(traceback))

    def __str__(self):
        words = [type(self).__name__]
        exception = self._exception
        if self.value is not None or exception is not _NONE:
            words.append(f"value={self.value!r}")
        if exception is _NONE:
            words.append("unset")
        elif exception is not None:
            words.append(f"exception={exception!r}")
        return "<%s  _links[%s]>" % (" ".join(words), self.linkcount())

    def ready(self):
        """Return whether there is a value or an exception."""
        return self._exc_info or self._value is not _NONE

    def successful(self):
        """Return whether there is a value."""
        return self._value is not _NONE

    @property
    def exception(self):
        """The exception, or `None` if there is none."""
        return self._exc_info[1] if self._exc_info else None

    def set(self, value=None):
        """Store *value* and wake everyone who waits."""
        self._saw_thread()
        self._value = value
        self._check_and_notify()

    def set_exception(self, exception, exc_info=None):
        """Store *exception* and wake everyone who waits.

        *exc_info* is a tuple as of :func:`sys.exc_info`; its traceback is shown when the exception
        is raised.
        """
        self._saw_thread()
        kind, exception, traceback = exc_info or (type(exception), exception, None)
        # As bytes, or the frames and all their variables would live as long as this object.
        self._exc_info = (kind, exception, dump_traceback(traceback))
        self._check_and_notify()

    def _raise_exception(self):
        reraise(*self.exc_info)

    def get(self, block=True, timeout=None):
        """Return the value or raise the exception, after waiting until there is one.

        If none comes within *timeout* seconds, or there is none yet and *block* is false,
        `gevent.Timeout` is raised.
        """
        if self._value is not _NONE:
            return self._value
        if self._exc_info:
            return self._raise_exception()
        if not block:
            raise Timeout()
        self._saw_thread()
        self._wait_core(timeout, ())
        return self.get(block=False)

    def get_nowait(self):
        """Return the value or raise the exception; if there is none yet, `gevent.Timeout`."""
        return self.get(block=False)

    def _wait_return_value(self, waited, wait_success):
        return self.value

    def wait(self, timeout=None):
        """Wait until there is a value or an exception, at most *timeout* seconds.

        Returns the value, or `None` if there is an exception or the time is over.
        """
        return self._wait(timeout)

    def __call__(self, source):
        """Take over the result of *source*, to which this object was linked."""
        if source.successful():
            self.set(source.value)
        else:
            self.set_exception(source.exception, getattr(source, "exc_info", None))

    # As concurrent.futures.Future has it

    set_result = set

    def result(self, timeout=None):
        """The same as ``get(timeout=timeout)``."""
        return self.get(timeout=timeout)

    def done(self):
        """Return whether there is a value or an exception."""
        return self.ready()

    def cancel(self):
        """Return false: what is to come cannot be called off."""
        return False

    def cancelled(self):
        """Return false."""
        return False
