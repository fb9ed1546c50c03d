from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from typing_extensions import Self

_T = TypeVar("_T")
_Exception = BaseException | type[BaseException] | bool | None

class Timeout(BaseException):
    seconds: float | None
    exception: _Exception
    timer: Any
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

def with_timeout(
    seconds: float | None, function: Callable[..., _T], *args: Any, **kwds: Any
) -> _T: ...

__all__ = ["Timeout", "with_timeout"]
