"""The watcher classes under the names of upstream's CFFI loops."""

from gevent.core import (
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

IoMixin = io
TimerMixin = timer
SignalMixin = signal
IdleMixin = idle
PrepareMixin = prepare
CheckMixin = check
ForkMixin = fork
AsyncMixin = async_
ChildMixin = child
StatMixin = stat
_EXPORTED = (watcher,)


def events_to_str(event_field, all_events):
    """Return the names in *all_events*, pairs of bit and name, of the bits of *event_field*."""
    names = []
    for bit, name in all_events:
        if event_field & bit:
            names.append(name)
            event_field &= ~bit
    if event_field:
        names.append(hex(event_field))
    return "|".join(names)
