"""The watcher classes under the name of upstream's CFFI libev watchers."""

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

__all__ = []

_NOARGS = ()
_EXPORTED = (
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
