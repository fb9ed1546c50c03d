from collections.abc import Iterable
from typing import Protocol, TypeVar

__all__ = ["error", "poll", "select"]

error = OSError

class _HasFileno(Protocol):
    def fileno(self) -> int: ...

_Descriptor = int | _HasFileno
_R = TypeVar("_R", bound=_Descriptor)
_W = TypeVar("_W", bound=_Descriptor)
_X = TypeVar("_X", bound=_Descriptor)

def select(
    rlist: Iterable[_R], wlist: Iterable[_W], xlist: Iterable[_X], timeout: float | None = None
) -> tuple[list[_R], list[_W], list[_X]]: ...

class poll:
    def __init__(self) -> None: ...
    def register(self, fd: _Descriptor, eventmask: int = ...) -> None: ...
    def modify(self, fd: _Descriptor, eventmask: int) -> None: ...
    def unregister(self, fd: _Descriptor) -> None: ...
    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]: ...
