from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from queue import Full
from typing import Any, ParamSpec, TypeVar

from gevent.greenlet import Greenlet
from greenlet import greenlet

_P = ParamSpec("_P")
_T = TypeVar("_T")
_S = TypeVar("_S")
_Exception = BaseException | type[BaseException]

class GroupMappingMixin:
    def apply(
        self,
        func: Callable[..., _T],
        args: Sequence[Any] | None = None,
        kwds: Mapping[str, Any] | None = None,
    ) -> _T: ...
    def apply_async(
        self,
        func: Callable[..., _T],
        args: Sequence[Any] | None = None,
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[_T], object] | None = None,
    ) -> Greenlet[..., _T]: ...
    def apply_cb(
        self,
        func: Callable[..., _T],
        args: Sequence[Any] | None = None,
        kwds: Mapping[str, Any] | None = None,
        callback: Callable[[_T], object] | None = None,
    ) -> _T: ...
    def map(
        self, func: Callable[[_S], _T], iterable: Iterable[_S], maxsize: int | None = None
    ) -> list[_T]: ...
    def map_async(
        self,
        func: Callable[[_S], _T],
        iterable: Iterable[_S],
        callback: Callable[[list[_T]], object] | None = None,
    ) -> Greenlet[..., list[_T]]: ...
    def map_cb(
        self,
        func: Callable[[_S], _T],
        iterable: Iterable[_S],
        callback: Callable[[list[_T]], object] | None = None,
    ) -> list[_T]: ...
    def imap(
        self, func: Callable[..., _T], *iterables: Iterable[Any], **kwargs: Any
    ) -> Iterator[_T]: ...
    def imap_unordered(
        self, func: Callable[..., _T], *iterables: Iterable[Any], **kwargs: Any
    ) -> Iterator[_T]: ...

class Group(GroupMappingMixin):
    greenlet_class: type[Greenlet[..., Any]]
    greenlets: set[greenlet]
    def __init__(self, *args: Any) -> None: ...
    def spawn(
        self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> Greenlet[_P, _T]: ...
    def __len__(self) -> int: ...
    def __contains__(self, item: object) -> bool: ...
    def __iter__(self) -> Iterator[greenlet]: ...
    def add(self, greenlet: greenlet) -> None: ...
    def discard(self, greenlet: greenlet) -> None: ...
    def start(self, greenlet: Greenlet[..., Any], *args: Any, **kwargs: Any) -> None: ...
    def join(self, timeout: float | None = None, raise_error: bool = False) -> bool: ...
    def kill(
        self, exception: _Exception = ..., block: bool = True, timeout: float | None = None
    ) -> None: ...
    def killone(
        self,
        greenlet: greenlet,
        exception: _Exception = ...,
        block: bool = True,
        timeout: float | None = None,
    ) -> None: ...
    def full(self) -> bool: ...
    def wait_available(self, timeout: float | None = None) -> int | None: ...

class Pool(Group):
    size: int | None
    def __init__(
        self, size: int | None = None, greenlet_class: type[Greenlet[..., Any]] | None = None
    ) -> None: ...
    def add(
        self, greenlet: greenlet, blocking: bool = True, timeout: float | None = None
    ) -> None: ...
    def start(self, greenlet: Greenlet[..., Any], *args: Any, **kwargs: Any) -> None: ...
    def free_count(self) -> int: ...

class PoolFull(Full): ...

__all__ = ["Group", "Pool", "PoolFull"]
