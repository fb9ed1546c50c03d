from typing import Any

class Config:
    settings: dict[str, Any]
    def __init__(self) -> None: ...
    # A setting for each of the GEVENT variables, by its name in small letters.
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...

config: Config
