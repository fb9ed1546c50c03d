"""The watcher classes under the name of upstream's libuv watchers."""

from gevent._ffi._watchers import *  # noqa: F403

__all__ = []
