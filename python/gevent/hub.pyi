from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Generic, ParamSpec, TextIO, TypeVar

from gevent import signal_handler as signal
from gevent import (
    idle as idle,
    iwait as iwait,
    reinit as reinit,
    sleep as sleep,
    spawn_raw as spawn_raw,
    wait as wait,
)
from gevent._core import watcher as _watcher
from gevent._loop import loop as _loop
from gevent.exceptions import LoopExit as LoopExit
from gevent.resolver import AbstractResolver
from gevent.threadpool import ThreadPool
from greenlet import GreenletExit as GreenletExit, getcurrent as getcurrent, greenlet as _greenlet

__all__ = [
    "GreenletExit",
    "Hub",
    "Waiter",
    "get_hub",
    "getcurrent",
    "kill",
    "reinit",
    "signal",
    "sleep",
    "spawn_raw",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")

class Hub(_greenlet):
    SYSTEM_ERROR: tuple[type[BaseException], ...]
    NOT_ERROR: tuple[type[BaseException], ...]
    threadpool_size: int
    name: str
    thread_ident: int | None
    periodic_monitoring_thread: Any
    loop: _loop
    def __init__(self, loop: Any = None, default: bool | None = None) -> None: ...
    @property
    def loop_class(self) -> type[_loop]: ...
    @property
    def backend(self) -> Any: ...
    @property
    def main_hub(self) -> bool: ...
    @property
    def resolver_class(self) -> type[AbstractResolver]: ...
    @property
    def resolver(self) -> AbstractResolver: ...
    @resolver.setter
    def resolver(self, value: AbstractResolver) -> None: ...
    @property
    def threadpool_class(self) -> type[ThreadPool]: ...
    @property
    def threadpool(self) -> ThreadPool: ...
    @threadpool.setter
    def threadpool(self, value: ThreadPool) -> None: ...
    @property
    def exception_stream(self) -> TextIO | None: ...
    @exception_stream.setter
    def exception_stream(self, value: TextIO | None) -> None: ...
    def handle_error(
        self,
        context: object,
        type: type[BaseException] | None,
        value: BaseException | str | None,
        tb: TracebackType | None,
    ) -> None: ...
    def handle_system_error(
        self,
        type: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None = None,
    ) -> None: ...
    def print_exception(
        self,
        context: object,
        t: type[BaseException] | None,
        v: BaseException | str | None,
        tb: TracebackType | None,
    ) -> None: ...
    def run(self) -> None: ...
    def start_periodic_monitoring_thread(self) -> Any: ...
    def join(self, timeout: float | None = None) -> bool: ...
    def stop(self) -> None: ...
    def destroy(self, destroy_loop: bool | None = None) -> None: ...
    def wait(self, watcher: _watcher) -> None: ...
    def cancel_wait(
        self,
        watcher: _watcher | None,
        error: BaseException | type[BaseException],
        close_watcher: bool = False,
    ) -> None: ...
    def cancel_waits_close_and_then(
        self,
        watchers: Iterable[_watcher | None],
        exc_kind: type[BaseException],
        then: Callable[..., object],
        *then_args: Any,
    ) -> None: ...

class Waiter(Generic[_T]):
    hub: Hub
    greenlet: _greenlet | None
    value: _T | None
    def __init__(self, hub: Hub | None = None) -> None: ...
    def clear(self) -> None: ...
    def ready(self) -> bool: ...
    def successful(self) -> bool: ...
    @property
    def exc_info(
        self,
    ) -> tuple[type[BaseException], BaseException, TracebackType | None] | None: ...
    def switch(self, value: _T) -> None: ...
    def switch_args(self, *args: Any) -> None: ...
    def throw(self, *throw_args: Any) -> None: ...
    def get(self) -> _T: ...
    def __call__(self, source: Any) -> None: ...

def get_hub() -> Hub: ...
def get_hub_noargs() -> Hub: ...
def set_hub(hub: Hub | None) -> None: ...
def kill(
    greenlet: _greenlet,
    exception: BaseException | type[BaseException] = ...,
    block: bool = False,
    timeout: float | None = None,
) -> None: ...
