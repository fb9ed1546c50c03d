from collections.abc import Callable, Iterable, Sequence
from sys import getswitchinterval as getswitchinterval, setswitchinterval as setswitchinterval
from typing import Any, NamedTuple, ParamSpec, TypeVar, overload

from gevent._config import Config as _Config
from gevent.greenlet import Greenlet as Greenlet, joinall as joinall, killall as killall
from gevent.timeout import Timeout as Timeout, with_timeout as with_timeout
from gevent.hub import Hub as _Hub
from greenlet import GreenletExit as GreenletExit, getcurrent as getcurrent, greenlet

_P = ParamSpec("_P")
_T = TypeVar("_T")

class _version_info(NamedTuple):
    major: int
    minor: int
    micro: int
    releaselevel: str
    serial: int

version_info: _version_info
__version__: str
config: _Config

def spawn(
    function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
) -> Greenlet[_P, _T]: ...
def spawn_later(
    seconds: float, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
) -> Greenlet[_P, _T]: ...
def spawn_raw(
    function: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs
) -> greenlet: ...
def sleep(seconds: float = 0, ref: bool = True) -> None: ...
def idle(priority: int = 0) -> None: ...
def get_hub() -> _Hub: ...
def reinit(hub: _Hub | None = None) -> None: ...
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
