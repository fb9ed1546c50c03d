"""The watcher classes under the names of upstream's CFFI loops."""

from gevent import core

__all__ = []

IoMixin = core.io
TimerMixin = core.timer
SignalMixin = core.signal
IdleMixin = core.idle
PrepareMixin = core.prepare
CheckMixin = core.check
ForkMixin = core.fork
AsyncMixin = core.async_
ChildMixin = core.child
StatMixin = core.stat
watcher = core.watcher


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
