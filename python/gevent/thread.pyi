from _thread import (
    allocate as allocate,
    exit_thread as exit_thread,
    get_native_id as get_native_id,
    interrupt_main as interrupt_main,
    start_new as start_new,
)
from collections.abc import Callable, Mapping
from threading import TIMEOUT_MAX as TIMEOUT_MAX
from typing import Any, final

from gevent.lock import BoundedSemaphore, RLock as RLock
from gevent.local import local as local
from greenlet import greenlet
from typing_extensions import Never

error = RuntimeError

@final
class LockType(BoundedSemaphore):
    def __init__(self) -> None: ...
    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...  # type: ignore[override]
    def __enter__(self) -> bool: ...  # type: ignore[override]

allocate_lock = LockType

def exit() -> Never: ...
def get_ident(gr: greenlet | None = None) -> int: ...
def stack_size(size: int | None = None) -> int: ...
def start_new_thread(
    function: Callable[..., object],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> int: ...
