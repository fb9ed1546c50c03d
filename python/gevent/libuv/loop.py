"""The loop's class under the name of upstream's libuv loop."""

from gevent.core import get_header_version, get_version, loop, supported_backends

__all__ = []

_EXPORTED = (get_header_version, get_version, loop, supported_backends)
