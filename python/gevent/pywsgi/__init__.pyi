from collections.abc import Callable, Iterable, Iterator
from http.client import HTTPMessage
from types import TracebackType
from typing import Any, TypeAlias

from gevent.server import StreamServer

__all__ = [
    "WSGIServer",
    "WSGIHandler",
    "LoggingLogAdapter",
    "Environ",
    "SecureEnviron",
    "WSGISecureEnviron",
]

_Application: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
_ExcInfo: TypeAlias = tuple[type[BaseException], BaseException, TracebackType | None]

MAX_REQUEST_LINE: int

def format_date_time(timestamp: float) -> bytes: ...
def headers_factory(fp: Any, *args: Any) -> OldMessage: ...

class OldMessage(HTTPMessage):
    status: str
    def __init__(self, **kwargs: Any) -> None: ...
    def getheader(self, name: str, default: Any = None) -> Any: ...
    @property
    def headers(self) -> Iterator[str]: ...
    @property
    def typeheader(self) -> str | None: ...

class Environ(dict[str, Any]):
    def iteritems(self) -> Any: ...
    def copy(self) -> Environ: ...

class SecureEnviron(Environ):
    default_secure_repr: bool
    default_whitelist_keys: tuple[str, ...]
    default_print_masked_keys: bool
    secure_repr: bool
    whitelist_keys: tuple[str, ...]
    print_masked_keys: bool

class WSGISecureEnviron(SecureEnviron): ...

class LoggingLogAdapter:
    def __init__(self, logger: Any, level: int = 20) -> None: ...
    def write(self, msg: str) -> None: ...
    def flush(self) -> None: ...
    def writelines(self, lines: Iterable[str]) -> None: ...
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...
    def __delattr__(self, name: str) -> None: ...

class Input:
    rfile: Any
    content_length: int | None
    socket: Any
    position: int
    chunked_input: bool
    send_100_continue_enabled: bool
    def __init__(
        self,
        rfile: Any,
        content_length: int | None,
        socket: Any = None,
        chunked_input: bool = False,
    ) -> None: ...
    def read(self, length: int | None = None) -> bytes: ...
    def readline(self, size: int | None = None) -> bytes: ...
    def readlines(self, hint: int | None = None) -> list[bytes]: ...
    def __iter__(self) -> Input: ...
    def next(self) -> bytes: ...
    def __next__(self) -> bytes: ...

class WSGIHandler:
    ApplicationError: type[Exception]
    protocol_version: str
    ignored_socket_errors: tuple[int, ...]
    socket: Any
    client_address: Any
    server: WSGIServer
    rfile: Any
    application: _Application | None
    command: str | None
    path: str | None
    requestline: str | None
    request_version: str | None
    headers: OldMessage
    content_length: int | None
    environ: dict[str, Any] | None
    wsgi_input: Input | None
    close_connection: bool
    connection_upgraded: bool
    status: Any
    code: int | None
    result: Any
    response_headers: list[tuple[bytes, bytes]] | None
    response_length: int
    response_use_chunked: bool
    headers_sent: bool
    provided_date: Any
    provided_content_length: Any
    time_start: float
    time_finish: float
    def __init__(self, sock: Any, address: Any, server: WSGIServer, rfile: Any = None) -> None: ...
    def MessageClass(self, *args: Any) -> OldMessage: ...
    def handle(self) -> None: ...
    def handle_one_request(self) -> bool | tuple[str, bytes] | None: ...
    def read_requestline(self) -> str: ...
    def read_request(self, raw_requestline: str) -> Any: ...
    def get_environ(self) -> dict[str, Any]: ...
    def handle_one_response(self) -> None: ...
    def run_application(self) -> None: ...
    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None
    ) -> Callable[[bytes], object]: ...
    def process_result(self) -> None: ...
    def finalize_headers(self) -> None: ...
    def write(self, data: Any) -> None: ...
    def handle_error(self, t: Any, v: Any, tb: Any) -> None: ...
    def log_error(self, msg: str, *args: Any) -> None: ...
    def log_request(self) -> None: ...
    def format_request(self) -> str: ...

class WSGIServer(StreamServer):
    handler_class: type[WSGIHandler]
    application: _Application
    log: Any
    error_log: Any
    environ: dict[str, Any]
    environ_class: type[dict[str, Any]]
    secure_environ_class: type[SecureEnviron]
    base_env: dict[str, Any]
    idle_timeout: float | None
    idle_grace: float
    head_timeout: float | None
    io_timeout: float | None
    linger_timeout: float | None
    max_line: int | None
    max_head: int | None
    max_headers: int | None
    max_body: int | None
    http: str | None
    def __init__(
        self,
        listener: Any,
        application: _Application | None = None,
        backlog: int | None = None,
        spawn: Any = "default",
        log: Any = "default",
        error_log: Any = "default",
        handler_class: type[WSGIHandler] | None = None,
        environ: dict[str, Any] | None = None,
        **ssl_args: Any,
    ) -> None: ...
    def set_environ(self, environ: dict[str, Any] | None = None) -> None: ...
    def set_max_accept(self) -> None: ...
    def get_environ(self) -> dict[str, Any]: ...
    def update_environ(self) -> None: ...
    def handle(self, sock: Any, address: Any) -> None: ...
    def reload_certificates(self) -> None: ...
    def drained(self) -> bool: ...
