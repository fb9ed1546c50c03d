from collections.abc import Iterable
from types import ModuleType
from typing import Any, overload

__all__ = [
    "MonkeyPatchWarning",
    "get_original",
    "is_module_patched",
    "is_object_patched",
    "main",
    "patch_all",
    "patch_builtins",
    "patch_dns",
    "patch_module",
    "patch_os",
    "patch_queue",
    "patch_select",
    "patch_signal",
    "patch_socket",
    "patch_ssl",
    "patch_subprocess",
    "patch_sys",
    "patch_thread",
    "patch_time",
]

class MonkeyPatchWarning(RuntimeWarning): ...

@overload
def get_original(mod_name: str | Iterable[str], item_name: str) -> Any: ...
@overload
def get_original(mod_name: str | Iterable[str], item_name: Iterable[str]) -> list[Any]: ...
def is_module_patched(mod_name: str) -> bool: ...
def is_object_patched(mod_name: str, item_name: str) -> bool: ...
def patch_item(module: ModuleType, attr: str, newitem: object) -> None: ...
def remove_item(module: ModuleType, attr: str) -> None: ...
def patch_module(
    target_module: ModuleType,
    source_module: ModuleType,
    items: Iterable[str] | None = None,
    _warnings: list[str] | None = None,
    _patch_kwargs: dict[str, Any] | None = None,
    _notify_will_subscribers: bool = True,
    _notify_did_subscribers: bool = True,
    _call_hooks: bool = True,
) -> bool: ...
def patch_all(
    socket: bool = True,
    dns: bool = True,
    time: bool = True,
    select: bool = True,
    thread: bool = True,
    os: bool = True,
    ssl: bool = True,
    subprocess: bool = True,
    sys: bool = False,
    aggressive: bool = True,
    Event: bool = True,
    builtins: bool = True,
    signal: bool = True,
    queue: bool = True,
    contextvars: bool = True,
    **kwargs: bool,
) -> bool | None: ...
def patch_builtins() -> None: ...
def patch_dns() -> None: ...
def patch_os() -> None: ...
def patch_queue() -> None: ...
def patch_select(aggressive: bool = True) -> None: ...
def patch_signal() -> None: ...
def patch_socket(dns: bool = True, aggressive: bool = True) -> None: ...
def patch_ssl(_warnings: list[str] | None = None, _first_time: bool = True) -> None: ...
def patch_subprocess() -> None: ...
def patch_sys(stdin: bool = True, stdout: bool = True, stderr: bool = True) -> None: ...
def patch_thread(
    threading: bool = True,
    _threading_local: bool = True,
    Event: bool = True,
    logging: bool = True,
    existing_locks: bool = True,
    _warnings: list[str] | None = None,
) -> None: ...
def patch_time() -> None: ...
def main() -> None: ...
