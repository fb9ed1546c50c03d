"""The loop's class under the names of upstream's CFFI loops."""

from gevent.core import loop

__all__ = [
    "AbstractLoop",
]

AbstractLoop = loop
