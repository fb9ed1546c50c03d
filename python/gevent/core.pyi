from gevent._loop import loop as loop
from time import time as time

__all__ = [
    "embeddable_backends",
    "get_header_version",
    "get_version",
    "loop",
    "recommended_backends",
    "supported_backends",
    "time",
]

def embeddable_backends() -> list[str]: ...
def get_header_version() -> str: ...
def get_version() -> str: ...
def recommended_backends() -> list[str]: ...
def supported_backends() -> list[str]: ...
