"""`Waiter`: one greenlet waits, the hub hands it a value or an error."""

import sys

from greenlet import getcurrent

from gevent._hub_local import get_hub_noargs as get_hub
from gevent.exceptions import ConcurrentObjectUseError

__all__ = [
    "Waiter",
]

_NONE = object()


class Waiter:
    """
    Hands a value or an error from the hub to a greenlet that waits in `get`.

    What comes before anybody waits is kept. `switch` and `throw` are for the hub only, `get` for
    every other greenlet. It is easy to leave a greenlet waiting for ever with this class; prefer
    `gevent.event.AsyncResult`.
    """

    __slots__ = ["hub", "greenlet", "value", "_exception"]

    def __init__(self, hub=None):
        self.hub = get_hub() if hub is None else hub
        self.greenlet = None
        self.value = None
        self._exception = _NONE

    def clear(self):
        """Forget what is kept."""
        self.greenlet = None
        self.value = None
        self._exception = _NONE

    def __str__(self):
        text = f"<{type(self).__name__} greenlet={self.greenlet}"
        if self._exception is None:
            text += f" value={self.value!r}"
        elif self._exception is not _NONE:
            text += f" exc_info={self.exc_info!r}"
        return text + ">"

    def ready(self):
        """Whether a value or an error is kept."""
        return self._exception is not _NONE

    def successful(self):
        """Whether a value is kept."""
        return self._exception is None

    @property
    def exc_info(self):
        """The arguments of `throw` that are kept, or None."""
        if self._exception is not _NONE:
            return self._exception
        return None

    def switch(self, value):
        """Hand over *value*, or keep it if nobody waits."""
        greenlet = self.greenlet
        if greenlet is None:
            self.value = value
            self._exception = None
            return
        self._check_in_hub()
        switch = greenlet.switch
        try:
            switch(value)
        except:
            self.hub.handle_error(switch, *sys.exc_info())

    def switch_args(self, *args):
        """Hand over the tuple of the arguments."""
        return self.switch(args)

    def throw(self, *throw_args):
        """Raise an error where somebody waits, or keep it."""
        greenlet = self.greenlet
        if greenlet is None:
            self._exception = throw_args
            return
        self._check_in_hub()
        throw = greenlet.throw
        try:
            throw(*throw_args)
        except:
            self.hub.handle_error(throw, *sys.exc_info())

    def _check_in_hub(self):
        if getcurrent() is not self.hub:
            raise AssertionError("Can only use Waiter.switch method from the Hub greenlet")

    def get(self):
        """Return the value or raise the error, after waiting for it if need be."""
        if self._exception is not _NONE:
            if self._exception is None:
                return self.value
            return getcurrent().throw(*self._exception)
        if self.greenlet is not None:
            raise ConcurrentObjectUseError(f"This Waiter is already used by {self.greenlet!r}")
        self.greenlet = getcurrent()
        try:
            return self.hub.switch()
        finally:
            self.greenlet = None

    def __call__(self, source):
        if source.exception is None:
            self.switch(source.value)
        else:
            self.throw(source.exception)


class MultipleWaiter(Waiter):
    """A waiter that keeps every value, for whoever waits again and again."""

    __slots__ = ["_values"]

    def __init__(self, hub=None):
        super().__init__(hub)
        self._values = []

    def switch(self, value):
        self._values.append(value)
        super().switch(True)

    def get(self):
        if not self._values:
            super().get()
            super().clear()
        return self._values.pop(0)
