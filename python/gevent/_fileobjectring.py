"""Regular files on a loop that reads and writes them by itself, which io_uring does.

:class:`RingFileIO` is a raw file whose methods let other greenlets run while the disk works.
What is in memory already is had at once, without a switch. ``FileObjectPosix`` and
``FileObjectThread`` put it below their buffers where the loop allows.
"""

import os
from io import FileIO

from gevent import _core
from gevent.hub import get_hub

__all__ = [
    "RingFileIO",
    "is_usable",
    "open_raw",
    "waiting",
]


def is_usable():
    """Whether the running greenlet's loop reads and writes files by itself."""
    get_hub()
    return _core.files_are_native()


def _opener(path, flags):
    try:
        return _core.file_open(os.fsencode(path), flags)
    except OSError as ex:
        if ex.errno is not None and ex.filename is None:
            ex.filename = path
        raise


class RingFileIO(FileIO):
    """A raw regular file that lets others run while it waits for the disk.

    It does so only within :func:`waiting`. Elsewhere it blocks: a buffer that is flushed because it
    is garbage may be so anywhere. As with any descriptor, its position is shared with whoever else
    has the file open by it, and a read that was killed on its way may have moved it.
    """

    #: An object that lives, and is closed, with us: the owner of the descriptor.
    _keep_alive = None
    _may_wait = False

    def __init__(self, file, mode="r", closefd=True):
        super().__init__(file, mode, closefd, None if isinstance(file, int) else _opener)
        self._can_read = super().readable()
        self._can_write = super().writable()

    def read(self, size=-1):
        if not (self._may_wait and self._can_read):
            return super().read(size)
        if size is None or size < 0:
            return _core.file_read_all(self.fileno())
        return _core.file_read(self.fileno(), size)

    def readall(self):
        if not (self._may_wait and self._can_read):
            return super().readall()
        return _core.file_read_all(self.fileno())

    def readinto(self, buffer):
        if not (self._may_wait and self._can_read):
            return super().readinto(buffer)
        return _core.file_read_into(self.fileno(), buffer)

    def write(self, data):
        if not (self._may_wait and self._can_write):
            return super().write(data)
        return _core.file_write(self.fileno(), data)

    def isatty(self):
        return self.closed and super().isatty()

    def close(self):
        keep_alive, self._keep_alive = self._keep_alive, None
        try:
            super().close()
        finally:
            if hasattr(keep_alive, "close"):
                keep_alive.close()


def waiting(raw, lock, method, *args, **kwargs):
    """``method(*args, **kwargs)`` of a file over *raw*, which may let others run.

    *lock* keeps these out: a buffer can be used by one at a time.
    """
    with lock:
        raw._may_wait = True
        try:
            return method(*args, **kwargs)
        finally:
            raw._may_wait = False


def open_raw(given, mode, closefd):
    """Open *given*, a path, descriptor or raw file, if the loop can do files.

    Returns ``(ring, other)``, at most one of which is not None: *ring* is a :class:`RingFileIO`,
    and *other* the raw file of a path that turned out not to be a regular one.
    """
    if not is_usable():
        return None, None
    if isinstance(given, int):
        return (RingFileIO(given, mode, closefd) if _core.file_is_regular(given) else None), None
    if hasattr(given, "fileno"):
        fileno = given.fileno()
        if not _core.file_is_regular(fileno):
            return None, None
        ring = RingFileIO(fileno, mode, False)
        ring._keep_alive = given
        try:
            ring.name = given.name
        except AttributeError:
            del ring.name
        return ring, None
    raw = RingFileIO(given, mode)
    return (raw, None) if _core.file_is_regular(raw.fileno()) else (None, raw)
