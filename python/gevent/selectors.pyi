from collections.abc import Mapping
from selectors import (
    EVENT_READ as EVENT_READ,
    EVENT_WRITE as EVENT_WRITE,
    BaseSelector as BaseSelector,
    SelectorKey as SelectorKey,
)
from typing import Any, Protocol

from gevent.hub import Hub

__all__ = ["DefaultSelector", "GeventSelector"]

class _HasFileno(Protocol):
    def fileno(self) -> int: ...

_FileObject = int | _HasFileno

class GeventSelector(BaseSelector):
    def __init__(self, hub: Hub | None = None) -> None: ...
    @property
    def hub(self) -> Hub: ...
    def register(self, fileobj: _FileObject, events: int, data: Any = None) -> SelectorKey: ...
    def unregister(self, fileobj: _FileObject) -> SelectorKey: ...
    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]: ...
    def close(self) -> None: ...
    def get_map(self) -> Mapping[_FileObject, SelectorKey]: ...

DefaultSelector = GeventSelector
