"""The Python call in a greenlet that goes on, for those who watch calls and returns."""

__all__ = [
    "resumed",
]


def resumed():
    """Do nothing.

    The hub's native side calls it in each greenlet that comes back from a wait, if there is a
    trace or profile function, or a tool of `sys.monitoring`: coverage.py, profilers and debuggers
    ask at a call and a return which greenlet runs.
    """
