from collections.abc import Callable
from socket import AddressFamily, SocketKind
from typing import TypeVar

_F = TypeVar("_F", bound=Callable[..., object])
_Host = str | bytes | None
_Address = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]

class AbstractResolver:
    HOSTNAME_ENCODING: str
    EAI_NONAME_MSG: str
    EAI_FAMILY_MSG: str
    def close(self) -> None: ...
    @staticmethod
    def fixup_gaierror(func: _F) -> _F: ...
    def gethostbyname(self, hostname: _Host, family: int = ...) -> str: ...
    def gethostbyname_ex(
        self, hostname: _Host, family: int = ...
    ) -> tuple[str, list[str], list[str]]: ...
    def getaddrinfo(
        self,
        host: _Host,
        port: str | bytes | int | None,
        family: int = 0,
        socktype: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[tuple[AddressFamily, SocketKind, int, str, _Address]]: ...
    def gethostbyaddr(self, ip_address: str) -> tuple[str, list[str], list[str]]: ...
    def getnameinfo(
        self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int
    ) -> tuple[str, str]: ...
