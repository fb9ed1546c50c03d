from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

from gevent._core import timer as _timer
from typing_extensions import Self

_P = ParamSpec("_P")
_T = TypeVar("_T")
_V = TypeVar("_V")
_Exception = BaseException | type[BaseException] | bool | None

class Timeout(BaseException):
    seconds: float | None
    exception: _Exception
    timer: _timer | None
    def __init__(
        self,
        seconds: float | None = None,
        exception: _Exception = None,
        ref: bool = True,
        priority: int = -1,
    ) -> None: ...
    @classmethod
    def start_new(
        cls,
        timeout: Timeout | float | None = None,
        exception: _Exception = None,
        ref: bool = True,
    ) -> Timeout: ...
    @property
    def pending(self) -> bool: ...
    def start(self) -> None: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> bool | None: ...

# `timeout_value` is what is returned when the time is up, in place of an error.
@overload
def with_timeout(
    seconds: float | None, function: Callable[..., _T], *args: Any, timeout_value: _V, **kwds: Any
) -> _T | _V: ...
@overload
def with_timeout(
    seconds: float | None, function: Callable[_P, _T], *args: _P.args, **kwds: _P.kwargs
) -> _T: ...

__all__ = ["Timeout", "with_timeout"]
