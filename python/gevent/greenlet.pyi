from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar, overload

import greenlet as _greenlet
from gevent._loop import loop as _loop
from typing_extensions import Self

_P = ParamSpec("_P")
_T = TypeVar("_T")
_G = TypeVar("_G", bound=_greenlet.greenlet)
_Exception = BaseException | type[BaseException]

class Greenlet(_greenlet.greenlet, Generic[_P, _T]):
    value: _T | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    spawning_greenlet: Callable[[], _greenlet.greenlet | None] | None
    spawn_tree_locals: dict[str, Any] | None
    spawning_stack_limit: int
    name: str
    @overload
    def __init__(
        self: Greenlet[_P, _T], run: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> None: ...
    @overload
    def __init__(self, run: None = None) -> None: ...
    @classmethod
    def spawn(
        cls, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> Greenlet[_P, _T]: ...
    @classmethod
    def spawn_later(
        cls, seconds: float, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> Greenlet[_P, _T]: ...
    @property
    def loop(self) -> _loop: ...
    @property
    def dead(self) -> bool: ...
    @property
    def started(self) -> bool: ...
    @property
    def exception(self) -> BaseException | None: ...
    @property
    def exc_info(
        self,
    ) -> tuple[type[BaseException], BaseException, TracebackType | None] | tuple[()]: ...
    @property
    def minimal_ident(self) -> int: ...
    def ready(self) -> bool: ...
    def successful(self) -> bool: ...
    def start(self) -> None: ...
    def start_later(self, seconds: float) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...
    def get(self, block: bool = True, timeout: float | None = None) -> _T: ...
    def kill(
        self, exception: _Exception = ..., block: bool = True, timeout: float | None = None
    ) -> None: ...
    def throw(self, *exception: Any) -> Any: ...
    def has_links(self) -> bool: ...
    def rawlink(self, callback: Callable[[Self], object]) -> None: ...
    def link(
        self,
        callback: Callable[[Self], object],
        SpawnedLink: Callable[[Callable[[Self], object]], Callable[[Self], object]] = ...,
    ) -> None: ...
    def link_value(
        self,
        callback: Callable[[Self], object],
        SpawnedLink: Callable[[Callable[[Self], object]], Callable[[Self], object]] = ...,
    ) -> None: ...
    def link_exception(
        self,
        callback: Callable[[Self], object],
        SpawnedLink: Callable[[Callable[[Self], object]], Callable[[Self], object]] = ...,
    ) -> None: ...
    def unlink(self, callback: Callable[[Self], object]) -> None: ...
    def unlink_all(self) -> None: ...
    @staticmethod
    def add_spawn_callback(callback: Callable[[Greenlet[..., Any]], object]) -> None: ...
    @staticmethod
    def remove_spawn_callback(callback: Callable[[Greenlet[..., Any]], object]) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        t: type[BaseException] | None,
        v: BaseException | None,
        tb: TracebackType | None,
    ) -> None: ...

@overload
def joinall(
    greenlets: Sequence[_G],
    timeout: float | None = None,
    raise_error: bool = False,
    count: int | None = None,
) -> list[_G]: ...

# Of functions with different parameters: to a checker, these have no common class.
@overload
def joinall(  # type: ignore[overload-cannot-match]
    greenlets: Sequence[_greenlet.greenlet],
    timeout: float | None = None,
    raise_error: bool = False,
    count: int | None = None,
) -> list[_greenlet.greenlet]: ...
def killall(
    greenlets: Iterable[_greenlet.greenlet],
    exception: _Exception = ...,
    block: bool = True,
    timeout: float | None = None,
) -> None: ...

__all__ = ["Greenlet", "joinall", "killall"]
