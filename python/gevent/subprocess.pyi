# What it mirrors depends on the version of Python: nothing is said of it here.
from typing import Any

def __getattr__(name: str) -> Any: ...
