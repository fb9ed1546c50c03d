import concurrent.futures
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

from gevent._core import async_
from gevent.event import AsyncResult
from gevent.hub import Hub
from gevent.pool import GroupMappingMixin

__all__ = ["ThreadPool", "ThreadPoolExecutor", "ThreadResult"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

class ThreadPool(GroupMappingMixin):
    hub: Hub
    pid: int
    manager: Any
    task_queue: Any
    fork_watcher: Any
    def __init__(
        self, maxsize: int, hub: Hub | None = None, idle_task_timeout: float = -1
    ) -> None: ...
    @property
    def maxsize(self) -> int: ...
    @maxsize.setter
    def maxsize(self, value: int) -> None: ...
    @property
    def size(self) -> int: ...
    @size.setter
    def size(self, value: int) -> None: ...
    def __len__(self) -> int: ...
    def join(self) -> None: ...
    def kill(self) -> None: ...
    def adjust(self) -> None: ...
    def spawn(
        self, func: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> AsyncResult[_T]: ...
    def apply(
        self,
        func: Callable[..., _T],
        args: Sequence[Any] | None = None,
        kwds: Mapping[str, Any] | None = None,
    ) -> _T: ...

class ThreadResult(Generic[_T]):
    receiver: Callable[[ThreadResult[_T]], object] | None
    hub: Hub | None
    async_watcher: async_ | None
    context: Any
    value: _T | None
    exc_info: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[()]
    @property
    def exception(self) -> BaseException | None: ...
    def set(self, value: _T, later: bool = False) -> None: ...
    def handle_error(self, context: Any, exc_info: Any) -> None: ...
    def destroy_in_main_thread(self) -> None: ...
    def successful(self) -> bool: ...

class ThreadPoolExecutor(concurrent.futures.ThreadPoolExecutor):
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    def kill(self, wait: bool = True, **kwargs: Any) -> None: ...
