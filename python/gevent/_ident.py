"""Small numbers for objects: `IdentRegistry`."""

from heapq import heappop, heappush
from weakref import WeakKeyDictionary, ref

__all__ = [
    "IdentRegistry",
]


class ValuedWeakRef(ref):
    """A weak reference that carries a value."""

    __slots__ = ("value",)


class IdentRegistry:
    """Gives each object the smallest non-negative integer that no living object has.

    The objects must be hashable and weakly referenceable; they are not kept alive.
    """

    def __init__(self):
        # object -> (number, reference whose callback gives the number back)
        self._registry = WeakKeyDictionary()
        # A heap of the numbers below the highest one given out that are free again.
        self._available_idents = []

    def get_ident(self, obj):
        """Return the number of *obj*, which is chosen at the first call."""
        entry = self._registry.get(obj)
        if entry is None:
            free = self._available_idents
            guard = ValuedWeakRef(obj, self._return_ident)
            guard.value = heappop(free) if free else len(self._registry)
            entry = self._registry[obj] = (guard.value, guard)
        return entry[0]

    # The default argument outlives the module's globals at interpreter shutdown.
    def _return_ident(self, vref, _push=heappush):
        _push(self._available_idents, vref.value)

    def __len__(self):
        return len(self._registry)
