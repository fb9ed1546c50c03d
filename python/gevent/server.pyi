from collections.abc import Callable
from typing import Any

from gevent.baseserver import BaseServer

__all__ = ["DatagramServer", "StreamServer"]

DEFAULT_REUSE_ADDR: int | None

class StreamServer(BaseServer):
    backlog: int
    reuse_addr: int | None
    ssl_args: dict[str, Any] | None
    def __init__(
        self,
        listener: Any,
        handle: Callable[..., Any] | None = None,
        backlog: int | None = None,
        spawn: Any = "default",
        **ssl_args: Any,
    ) -> None: ...
    @property
    def ssl_enabled(self) -> bool: ...
    @classmethod
    def get_listener(
        cls, address: Any, backlog: int | None = None, family: int | None = None
    ) -> Any: ...
    def do_close(self, sock: Any, *_args: Any) -> None: ...
    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> Any: ...

class DatagramServer(BaseServer):
    reuse_addr: int | None
    def __init__(self, *args: Any, **kwargs: Any) -> None: ...
    @classmethod
    def get_listener(cls, address: Any, family: int | None = None) -> Any: ...
    def sendto(self, *args: Any) -> None: ...
