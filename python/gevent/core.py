"""The loop's class and watchers, and libev's constants and names, as upstream's deprecated module.

The classes live in ``gevent._core``. Programs reach a loop by ``gevent.get_hub().loop``.
"""

import sys
from time import time

from gevent import _core
from gevent._config import config
from gevent._interfaces import ICallback, ILoop
from gevent.exceptions import HubDestroyed

__all__ = [
    "embeddable_backends",
    "get_header_version",
    "get_version",
    "loop",
    "recommended_backends",
    "supported_backends",
    "time",
]

loop = config.loop

watcher = _core.watcher
io = _core.io
timer = _core.timer
signal = _core.signal
idle = _core.idle
prepare = _core.prepare
check = _core.check
fork = _core.fork
async_ = _core.async_
child = _core.child
stat = _core.stat
callback = _core.callback
globals()["async"] = async_

# What a watcher can report, with libev's values.
UNDEF = -1
NONE = 0
READ = 0x01
WRITE = 0x02
READWRITE = READ | WRITE
TIMER = 0x100
PERIODIC = 0x200
SIGNAL = 0x400
CHILD = 0x800
STAT = 0x1000
IDLE = 0x2000
PREPARE = 0x4000
CHECK = 0x8000
EMBED = 0x10000
FORK = 0x20000
CLEANUP = 0x40000
ASYNC = 0x80000
CUSTOM = 0x1000000
ERROR = -0x80000000

MINPRI = -2
MAXPRI = 2

# libev's backends and loop flags. The loops here are reached by name; the numbers remain so
# that code which combines or prints them goes on working.
BACKEND_SELECT = 0x01
BACKEND_POLL = 0x02
BACKEND_EPOLL = 0x04
BACKEND_KQUEUE = 0x08
BACKEND_DEVPOLL = 0x10
BACKEND_PORT = 0x20
BACKEND_LINUXAIO = 0x40
BACKEND_IOURING = 0x80
FORKCHECK = 0x2000000
NOINOTIFY = 0x100000
SIGNALFD = 0x200000
NOSIGMASK = 0x400000

# How libev was built; nothing of it is in this gevent.
LIBEV_EMBED = False
EV_USE_4HEAP = 0
EV_USE_CLOCK_SYSCALL = 0
EV_USE_EVENTFD = 0
EV_USE_FLOOR = 0
EV_USE_INOTIFY = 0
EV_USE_MONOTONIC = 1
EV_USE_NANOSLEEP = 0
EV_USE_REALTIME = 0
EV_USE_SIGNALFD = 0

_events = (
    (READ, "READ"),
    (WRITE, "WRITE"),
    (0x80, "_IOFDSET"),
    (PERIODIC, "PERIODIC"),
    (SIGNAL, "SIGNAL"),
    (CHILD, "CHILD"),
    (STAT, "STAT"),
    (IDLE, "IDLE"),
    (PREPARE, "PREPARE"),
    (CHECK, "CHECK"),
    (EMBED, "EMBED"),
    (FORK, "FORK"),
    (CLEANUP, "CLEANUP"),
    (ASYNC, "ASYNC"),
    (CUSTOM, "CUSTOM"),
    (ERROR, "ERROR"),
)

_flags = (
    (BACKEND_PORT, "port"),
    (BACKEND_KQUEUE, "kqueue"),
    (BACKEND_IOURING, "linux_iouring"),
    (BACKEND_LINUXAIO, "linux_aio"),
    (BACKEND_EPOLL, "epoll"),
    (BACKEND_POLL, "poll"),
    (BACKEND_SELECT, "select"),
    (0x1000000, "noenv"),
    (FORKCHECK, "forkcheck"),
    (NOINOTIFY, "noinotify"),
    (SIGNALFD, "signalfd"),
    (NOSIGMASK, "nosigmask"),
)

_flags_str2int = {name: value for value, name in _flags}
_flags_str2int["uring"] = BACKEND_IOURING


#: As a watcher's first argument: replaced by the events that were reported.
EVENTS = _core.EVENTS
GEVENT_CORE_EVENTS = EVENTS


def _names(value, table):
    """Split *value* into the names of its bits; also return the bits without a name."""
    if not isinstance(value, int):
        raise TypeError("an integer is required")
    names = []
    for bit, name in table:
        if value & bit:
            names.append(name)
            value &= ~bit
        if not value:
            break
    return names, value


def _events_to_str(events):
    names, rest = _names(events, _events)
    if rest:
        names.append(hex(rest))
    return "|".join(names)


def _flags_to_list(flags):
    names, rest = _names(flags, _flags)
    return [*names, rest] if rest else names


def _flags_to_int(flags):
    """Return the number for flags given as a number, a name, names with commas or a list."""
    if not flags:
        return 0
    if isinstance(flags, int):
        return flags
    if isinstance(flags, str):
        flags = flags.split(",")
    result = 0
    for name in flags:
        name = name.strip().lower()
        if not name:
            continue
        if name not in _flags_str2int:
            possible = ", ".join(sorted(_flags_str2int))
            raise ValueError(f"Invalid backend or flag: {name!r}\nPossible values: {possible}")
        result |= _flags_str2int[name]
    return result


def _check_flags(flags):
    """Raise `ValueError` if *flags* name a backend that cannot be had here."""
    flags &= 0xFF
    if not flags:
        return
    if not flags & _flags_to_int(supported_backends()):
        raise ValueError(f"Unsupported backend: 0x{flags:x}")


def _usable(name):
    try:
        made = loop(name, default=False)
    except (OSError, ValueError):
        return False
    made.destroy()
    return True


def _own_backends():
    candidates = ("epoll", "uring") if sys.platform.startswith("linux") else ("kqueue",)
    return [name for name in candidates if _usable(name)]


def get_version():
    """Return the name and version of the event loop."""
    import gevent

    return "gevent-" + gevent.__version__


def get_header_version():
    """Return the same as `get_version`: nothing is compiled against another version."""
    return get_version()


def supported_backends():
    """Return the names that a loop may be asked for by.

    First the loops that work on this machine, then ``poll`` and ``select``, libev's portable
    ones, which mean the system's default here.
    """
    return [*_own_backends(), "poll", "select"]


def recommended_backends():
    """Return the name of the loop that is used if none is asked for, as a list."""
    return _own_backends()[:1]


def embeddable_backends():
    """Return the names of the loops whose descriptor another loop can watch."""
    return _own_backends()


def set_syserr_cb(callback):
    """Check *callback* as libev's function does; loops here raise `OSError` and do not call it."""
    if callback is not None and not callable(callback):
        raise TypeError(f"Expected callable or None, got {callback!r}")


# Names that upstream's module also shows.
_EXPORTED = (ICallback, ILoop, HubDestroyed)
