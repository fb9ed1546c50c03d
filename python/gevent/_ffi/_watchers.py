"""The names that upstream's modules of watchers show for each of its CFFI loops."""

from gevent.core import (
    _events,
    _events_to_str,
    async_,
    check,
    child,
    fork,
    idle,
    io,
    prepare,
    signal,
    stat,
    timer,
    watcher,
)

_NOARGS = ()

__all__ = [
    "_NOARGS",
    "_events",
    "_events_to_str",
    "async_",
    "check",
    "child",
    "fork",
    "idle",
    "io",
    "prepare",
    "signal",
    "stat",
    "timer",
    "watcher",
]
