from collections.abc import Callable, Iterable, Sequence
from sys import getswitchinterval as getswitchinterval, setswitchinterval as setswitchinterval
from typing import Any, NamedTuple, TypeVar, overload

from gevent.greenlet import Greenlet as Greenlet, joinall as joinall, killall as killall
from gevent.timeout import Timeout as Timeout, with_timeout as with_timeout
from greenlet import GreenletExit as GreenletExit, getcurrent as getcurrent, greenlet

_T = TypeVar("_T")

class _version_info(NamedTuple):
    major: int
    minor: int
    micro: int
    releaselevel: str
    serial: int

version_info: _version_info
__version__: str
config: Any

def spawn(function: Callable[..., _T], *args: Any, **kwargs: Any) -> Greenlet[_T]: ...
def spawn_later(
    seconds: float, function: Callable[..., _T], *args: Any, **kwargs: Any
) -> Greenlet[_T]: ...
def spawn_raw(function: Callable[..., Any], *args: Any, **kwargs: Any) -> greenlet: ...
def sleep(seconds: float = 0, ref: bool = True) -> None: ...
def idle(priority: int = 0) -> None: ...
def get_hub() -> Any: ...
def reinit(hub: Any = None) -> None: ...
def fork(*args: Any, **kwargs: Any) -> int: ...
def kill(
    greenlet: greenlet,
    exception: BaseException | type[BaseException] = ...,
    block: bool = ...,
    timeout: float | None = ...,
) -> None: ...

class signal_handler:
    def __init__(
        self, signalnum: int, handler: Callable[..., object], *args: Any, **kwargs: Any
    ) -> None: ...
    ref: bool
    def cancel(self) -> None: ...

@overload
def wait(objects: None = None, timeout: float | None = None, count: int | None = None) -> bool: ...
@overload
def wait(
    objects: Sequence[_T], timeout: float | None = None, count: int | None = None
) -> list[_T]: ...
def iwait(
    objects: Sequence[_T], timeout: float | None = None, count: int | None = None
) -> Iterable[_T]: ...

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
