"""gevent: coroutine-based networking, on a hub written in Rust."""

from collections import namedtuple

_version_info = namedtuple("version_info", ("major", "minor", "micro", "releaselevel", "serial"))

#: Deprecated: parse `__version__`.
version_info = _version_info(26, 9, 0, "final", 0)

#: The version of gevent whose API this is.
__version__ = "26.9.0"

__all__ = [
    "Greenlet",
    "GreenletExit",
    "Timeout",
    "config",
    "fork",
    "get_hub",
    "getcurrent",
    "getswitchinterval",
    "idle",
    "iwait",
    "joinall",
    "kill",
    "killall",
    "reinit",
    "setswitchinterval",
    "signal_handler",
    "sleep",
    "spawn",
    "spawn_later",
    "spawn_raw",
    "wait",
    "with_timeout",
]

from sys import getswitchinterval, setswitchinterval

# Makes `import greenlet` mean ours from here on. Both stay bound: where `import greenlet` came
# first, they were loaded before this package was, and are not attributes of it by themselves.
from gevent import _core, _greenlet

from gevent._config import config
from gevent._hub_local import get_hub
from gevent._hub_primitives import iwait_on_objects as iwait
from gevent._hub_primitives import wait_on_objects as wait
from gevent.greenlet import Greenlet, joinall, killall
from gevent.hub import GreenletExit, getcurrent, idle, kill, reinit, sleep, spawn_raw
from gevent.hub import signal as signal_handler
from gevent.os import fork
from gevent.timeout import Timeout, with_timeout

spawn = Greenlet.spawn
spawn_later = Greenlet.spawn_later
