"""`Waiter`, the lowest level at which a greenlet waits, and a variant for several values."""

from gevent._core import Waiter

__all__ = [
    "Waiter",
]


class MultipleWaiter(Waiter):
    """A waiter that keeps every value it was switched to with, for a `get` each.

    A plain `Waiter` would lose all but one of the values that arrive while its greenlet runs. There
    is no such treatment of exceptions.
    """

    __slots__ = ("_values",)

    def __init__(self, hub=None):
        Waiter.__init__(self, hub)
        self._values = []

    def switch(self, value):
        self._values.append(value)
        Waiter.switch(self, True)

    def get(self):
        if not self._values:
            Waiter.get(self)
            Waiter.clear(self)
        return self._values.pop(0)
