from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, ParamSpec, TextIO, TypeVar

from gevent.hub import Hub
from greenlet import greenlet as _greenlet
from typing_extensions import Self

__all__ = [
    "GreenletTree",
    "assert_switches",
    "format_run_info",
    "print_run_info",
    "wrap_errors",
]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Errors = type[BaseException] | tuple[type[BaseException], ...]

class wrap_errors(Generic[_P, _T]):
    def __init__(self, errors: _Errors, func: Callable[_P, _T]) -> None: ...
    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _T | BaseException: ...

class GreenletTree:
    greenlet: _greenlet | None
    is_current_tree: bool
    child_trees: list[GreenletTree]
    DEFAULT_DETAILS: dict[str, Any]
    def __init__(self, greenlet: _greenlet | None) -> None: ...
    def add_child(self, tree: GreenletTree) -> None: ...
    @property
    def root(self) -> bool: ...
    def format_lines(self, details: bool | dict[str, Any] = True) -> list[str]: ...
    def format(self, details: bool | dict[str, Any] = True) -> str: ...
    @classmethod
    def forest(cls) -> list[GreenletTree]: ...
    @classmethod
    def current_tree(cls) -> GreenletTree: ...

class assert_switches:
    hub: Hub | None
    tracer: Any
    max_blocking_time: float | None
    hub_only: bool
    def __init__(
        self, max_blocking_time: float | None = None, hub_only: bool = False
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        t: type[BaseException] | None,
        v: BaseException | None,
        tb: TracebackType | None,
    ) -> None: ...

def format_run_info(
    thread_stacks: bool = True,
    greenlet_stacks: bool = True,
    limit: int | None = ...,
    current_thread_ident: int | None = None,
) -> list[str]: ...
def print_run_info(
    thread_stacks: bool = True,
    greenlet_stacks: bool = True,
    limit: int | None = ...,
    file: TextIO | None = None,
) -> None: ...
