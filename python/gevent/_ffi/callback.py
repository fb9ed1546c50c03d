"""The callback class under the name of upstream's CFFI loops."""

from gevent.core import callback

__all__ = [
    "callback",
]
