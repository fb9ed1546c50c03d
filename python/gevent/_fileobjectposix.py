"""Cooperative files for descriptors that can be waited for: :class:`FileObjectPosix`."""

import os
from functools import partial
from io import DEFAULT_BUFFER_SIZE, FileIO, RawIOBase, UnsupportedOperation

from gevent._fileobjectcommon import (
    FileObjectBase,
    OpenDescriptor,
    WriteIsWriteallMixin,
    cancel_wait_ex,
)
from gevent._fileobjectring import RingFileIO, open_raw, waiting
from gevent._hub_primitives import wait_on_watcher
from gevent.event import Event
from gevent.hub import get_hub
from gevent.lock import Semaphore
from gevent.os import _close, _read, _readv, _write, ignored_errors, make_nonblocking


class GreenFileDescriptorIO(RawIOBase):
    """A raw file on a descriptor, made non-blocking, with a watcher for each direction it has."""

    _read_watcher = None
    _write_watcher = None
    _closed = False
    _seekable = None
    #: An object that lives, and is closed, with us: the owner of the descriptor.
    _keep_alive = None
    #: How many greenlets wait in it, and an event for who asks that is set when one has waited.
    _waiting = 0
    _has_waited = None

    def __init__(self, fileno, open_descriptor, closefd=True):
        super().__init__()
        self._closefd = closefd
        self._fileno = fileno
        self.name = fileno
        self.mode = open_descriptor.mode
        make_nonblocking(fileno)
        self.hub = get_hub()
        try:
            if open_descriptor.can_read:
                self._read_watcher = self.hub.loop.io(fileno, 1)
            if open_descriptor.can_write:
                self._write_watcher = self.hub.loop.io(fileno, 2)
        except BaseException:
            self.close()
            raise

    def __repr__(self):
        return "<%s at 0x%x fileno=%s mode=%r>" % (
            type(self).__name__,
            id(self),
            self._fileno,
            self.mode,
        )

    def isatty(self):
        with FileIO(self._fileno, "r", False) as file:
            return file.isatty()

    def readable(self):
        return self._read_watcher is not None

    def writable(self):
        return self._write_watcher is not None

    def seekable(self):
        if self._seekable is None:
            try:
                os.lseek(self._fileno, 0, os.SEEK_CUR)
                self._seekable = True
            except OSError:
                self._seekable = False
        return self._seekable

    def fileno(self):
        return self._fileno

    @property
    def closed(self):
        return self._closed

    def close(self):
        if self._closed:
            return
        self.flush()
        self._closed = True
        fileno, keep_alive = self._fileno, self._keep_alive
        hub, watchers = self.hub, (self._read_watcher, self._write_watcher)
        self._fileno = self._keep_alive = None
        self.hub = self._read_watcher = self._write_watcher = None
        hub.cancel_waits_close_and_then(
            watchers, cancel_wait_ex, self._finish_close, hub, self._closefd, fileno, keep_alive
        )

    @staticmethod
    def _finish_close(hub, closefd, fileno, keep_alive):
        try:
            if closefd:
                loop = hub.loop
                if loop is not None:
                    # The kernel may still have a wait that was given up, and with it the open file.
                    loop.closing_fd(fileno)
                _close(fileno)
        finally:
            if hasattr(keep_alive, "close"):
                keep_alive.close()

    def _when_ready(self, watcher, call, argument):
        while True:
            try:
                return call(self._fileno, argument)
            except OSError as ex:
                if ex.args[0] not in ignored_errors:
                    raise
            self._waiting += 1
            try:
                wait_on_watcher(watcher, None, None, self.hub)
            finally:
                self._waiting -= 1
                if self._has_waited is not None:
                    self._has_waited.set()
            if self._closed:
                # It became ready and was closed in one iteration of the loop.
                raise cancel_wait_ex

    def _wait_until_left(self):
        """Wait until no greenlet waits in it. One that waits again at once has not left."""
        while self._waiting:
            if self._has_waited is None:
                self._has_waited = Event()
            self._has_waited.clear()
            self._has_waited.wait()

    def _when_readable(self, call, argument):
        if self._read_watcher is None:
            raise UnsupportedOperation("read")
        return self._when_ready(self._read_watcher, call, argument)

    def readall(self):
        parts = []
        try:
            while part := self._when_readable(_read, DEFAULT_BUFFER_SIZE):
                parts.append(part)
        except cancel_wait_ex:
            # Closed under us: what has come so far is all there will be.
            pass
        return b"".join(parts)

    def readinto(self, b):
        return self._when_readable(_readv, (b,))

    def write(self, b):
        if self._write_watcher is None:
            raise UnsupportedOperation("write")
        return self._when_ready(self._write_watcher, _write, b)

    def seek(self, offset, whence=0):
        return os.lseek(self._fileno, offset, whence)


class GreenFileDescriptorIOWriteall(WriteIsWriteallMixin, GreenFileDescriptorIO):
    """A raw file that never writes half."""


class GreenOpenDescriptor(OpenDescriptor):
    """Puts a :class:`GreenFileDescriptorIO` at the bottom, or a file of the loop's."""

    def _do_open_raw(self):
        ring, raw = open_raw(self._fobj, self.fileio_mode, self.closefd)
        if ring is not None:
            return ring
        if self.is_fd():
            return GreenFileDescriptorIO(self._fobj, self, closefd=self.closefd)
        # A path or somebody's file: its own object owns the descriptor, and closes it.
        raw = raw or super()._do_open_raw()
        green = GreenFileDescriptorIO(raw.fileno(), self, closefd=False)
        green._keep_alive = raw
        try:
            green.name = raw.name
        except AttributeError:
            del green.name
        return green

    def _make_atomic_write(self, result, raw):
        if result.__class__ is GreenFileDescriptorIO:
            result.__class__ = GreenFileDescriptorIOWriteall
            return result
        return super()._make_atomic_write(result, raw)


_NEVER_WAIT = frozenset(("fileno", "readable", "writable", "seekable"))


class FileObjectPosix(FileObjectBase):
    """A cooperative file on a descriptor that ``select`` knows about: a socket, pipe or terminal.

    A regular file works as well. On a loop that reads and writes files by itself (io_uring) others
    run while it waits for the disk; on other loops it blocks for as long as the disk takes, so use
    :class:`FileObjectThread` for large ones there. Any other descriptor is put in non-blocking mode
    and has to stay there. ``fileio`` is the raw file below the buffer.
    """

    default_bufsize = DEFAULT_BUFFER_SIZE

    #: Of a file of the loop's: a buffer can be used by one greenlet at a time, and now others run.
    _lock = None

    def __init__(self, *args, **kwargs):
        descriptor = GreenOpenDescriptor(*args, **kwargs)
        self.fileio = descriptor.opened_raw()
        if isinstance(self.fileio, RingFileIO):
            self._lock = Semaphore()
        super().__init__(descriptor)

    def _wrap_method(self, method):
        if self._lock is None or method.__name__ in _NEVER_WAIT:
            return method
        return partial(waiting, self.fileio, self._lock, method)

    def _do_close(self, fobj, closefd):
        refused = False
        try:
            if self._lock is None:
                fobj.close()
            else:
                waiting(self.fileio, self._lock, fobj.close)
        except RuntimeError:
            # The buffer does so while another greenlet waits in it, which goes on to get its data.
            refused = fobj is not self.fileio and bool(getattr(self.fileio, "_waiting", 0))
            raise
        finally:
            if not refused:
                # Not the same if the buffer is somebody else's, or could not be flushed.
                self.fileio.close()
                self.fileio = None

    def _is_still_open(self):
        return self.fileio is not None
