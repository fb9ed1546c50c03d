"""The greenlet types below `gevent.Greenlet` and the hub; what needs all greenlets or buffers."""

from gc import get_objects

from greenlet import greenlet

from gevent._core import Hub as SwitchOutGreenletWithLoop
from gevent._core import TrackedRawGreenlet

__all__ = [
    "SwitchOutGreenletWithLoop",
    "TrackedRawGreenlet",
]


def get_reachable_greenlets():
    """Return all greenlets that the garbage collector knows, but for those that ask to be left out.

    Those have a true attribute ``greenlet_tree_is_ignored``.
    """
    return [
        ob
        for ob in get_objects()
        if isinstance(ob, greenlet) and not getattr(ob, "greenlet_tree_is_ignored", False)
    ]


def get_memory(data):
    """Return *data* as something that can be sliced without copying, or as bytes.

    A buffer without a shape, such as some of ctypes', cannot be sliced and is copied.
    """
    view = data if isinstance(data, memoryview) else memoryview(data)
    return view if view.shape else view.tobytes()
