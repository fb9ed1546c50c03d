"""The base of what can be waited for: events, semaphores and results are made of it.

All of that is native.
"""

from gevent._core import AbstractLinkable

__all__ = [
    "AbstractLinkable",
]
