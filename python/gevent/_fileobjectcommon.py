"""What the kinds of cooperative file have in common.

:class:`OpenDescriptor` reads the arguments and stacks buffers and decoders on a raw file.
:class:`FileObjectBase` holds the result and passes calls on. :class:`FileObjectBlock` and
:class:`FileObjectThread` are here as well; :mod:`gevent._fileobjectposix` has the third kind.
"""

import functools
import io
import os
import sys
import warnings
from errno import EBADF

from gevent._fileobjectring import RingFileIO, open_raw, waiting
from gevent.hub import _get_hub_noargs as get_hub
from gevent.lock import DummySemaphore, Semaphore


class cancel_wait_ex(OSError):
    """Raised in a greenlet that waits for a file which another closes."""

    def __init__(self):
        super().__init__(EBADF, "File descriptor was closed in another greenlet")


class FileObjectClosed(OSError):
    """Raised by any use of a file after its end."""

    def __init__(self):
        super().__init__(EBADF, "Bad file descriptor (FileObject was closed)")


class FlushingBufferedWriter(io.BufferedWriter):
    """A buffered writer that keeps nothing back."""

    def write(self, b):
        written = super().write(b)
        self.flush()
        return written


class WriteallMixin:
    """Adds :meth:`writeall` to a raw file, whose ``write`` may do part of the work only."""

    def writeall(self, value):
        """Write all of *value*, in as many steps as it takes; return how many bytes that were."""
        write = super().write
        rest = memoryview(value).cast("B")
        total = len(rest)
        while rest:
            rest = rest[write(rest) :]
        return total


class FileIO(io.FileIO):
    """A raw file of a class whose instances can be given another."""

    __slots__ = ()


class WriteIsWriteallMixin(WriteallMixin):
    """Makes ``write`` itself write all there is."""

    def write(self, value):
        return self.writeall(value)


class WriteallFileIO(WriteIsWriteallMixin, io.FileIO):
    """A raw file that never writes half."""


class WriteallRingFileIO(WriteIsWriteallMixin, RingFileIO):
    """The same, on a loop that does files."""


def _one_of(name, value, old_name, old_value, default):
    """The argument *name*, which may go by an older name too, but not by both."""
    if value is not None and old_value is not None:
        raise TypeError("Cannot specify both %s=%s and %s=%s" % (name, value, old_name, old_value))
    if value is None:
        value = old_value
    return default if value is None else value


def _check_type(value, kind, what):
    if not isinstance(value, kind):
        raise TypeError("invalid %s: %r" % (what, value))


@functools.lru_cache(maxsize=64)
def _parsed_mode(mode):
    """What *mode* means, as the attributes of an :class:`OpenDescriptor`."""
    modes = set(mode)
    if modes - set("axrwb+tU") or len(mode) > len(modes):
        raise ValueError("invalid mode: %r" % (mode,))
    creating, writing, appending = "x" in modes, "w" in modes, "a" in modes
    reading, updating = "r" in modes, "+" in modes
    text, binary, universal = "t" in modes, "b" in modes, "U" in modes
    can_write = creating or writing or appending or updating
    if universal:
        if can_write:
            raise ValueError("mode U cannot be combined with 'x', 'w', 'a', or '+'")
        reading = True
    if text and binary:
        raise ValueError("can't have text and binary mode at once")
    kinds = creating + reading + writing + appending
    if kinds > 1:
        raise ValueError("can't have read/write/append mode at once")
    if not kinds:
        raise ValueError("must have exactly one of read/write/append mode")
    fileio_mode = "x" * creating + "r" * reading + "w" * writing + "a" * appending + "+" * updating
    return {
        "creating": creating,
        "reading": reading,
        "writing": writing,
        "appending": appending,
        "updating": updating,
        "text": text,
        "binary": binary,
        "universal": universal,
        "can_write": can_write,
        "can_read": reading or updating,
        "fileio_mode": fileio_mode,
        "mode": fileio_mode + "t" * text + "b" * binary,
    }


class OpenDescriptor:
    """The arguments of :func:`open`, understood, and the file they ask for.

    *bufsize* and *close* are older names of *buffering* and *closefd*. With *atomic_write*, the
    ``write`` of an unbuffered file writes all it is given.
    """

    default_buffer_size = io.DEFAULT_BUFFER_SIZE

    _opened = None
    _opened_raw = None

    def __init__(
        self,
        fobj,
        mode="r",
        bufsize=None,
        close=None,
        encoding=None,
        errors=None,
        newline=None,
        buffering=None,
        closefd=None,
        atomic_write=False,
    ):
        closefd = _one_of("closefd", closefd, "close", close, True)
        buffering = _one_of("buffering", buffering, "bufsize", bufsize, -1)

        if not hasattr(fobj, "fileno"):
            if not isinstance(fobj, int):
                fobj = os.fspath(fobj)
            if not isinstance(fobj, (str, bytes, int)):
                raise TypeError("invalid file: %r" % (fobj,))
            if isinstance(fobj, (str, bytes)):
                # Nobody else could close it.
                closefd = True
        _check_type(mode, str, "mode")
        _check_type(buffering, int, "buffering")
        _check_type(encoding, (str, type(None)), "encoding")
        _check_type(errors, (str, type(None)), "errors")

        self._fobj = fobj
        self.__dict__.update(_parsed_mode(mode))
        if self.binary:
            for name, value in (("encoding", encoding), ("errors", errors), ("newline", newline)):
                if value is not None:
                    article = "a" if name == "newline" else "an"
                    raise ValueError("binary mode doesn't take %s %s argument" % (article, name))
            if buffering == 1:
                warnings.warn(
                    "line buffering (buffering=1) isn't supported in binary "
                    "mode, the default buffer size will be used",
                    RuntimeWarning,
                    stacklevel=4,
                )
        self.native = not (self.text or self.binary or encoding or errors)
        self.buffering = buffering
        self.encoding = encoding
        self.errors = errors
        self.newline = newline
        self.closefd = closefd
        self.atomic_write = atomic_write

    def is_fd(self):
        """Whether the file was given as a number."""
        return isinstance(self._fobj, int)

    def opened(self):
        """The file, with buffer and decoder as the arguments want it. Opened once."""
        if self._opened is None:
            raw = self.opened_raw()
            try:
                self._opened = self._wrapped(raw)
            except BaseException:
                raw.close()
                raise
        return self._opened

    def opened_raw(self):
        """The file below the buffer. Opened once."""
        if self._opened_raw is None:
            self._opened_raw = self._do_open_raw()
        return self._opened_raw

    def _do_open_raw(self):
        if hasattr(self._fobj, "fileno"):
            return self._fobj
        return FileIO(self._fobj, self.fileio_mode, self.closefd)

    def _raw_object_is_new(self, raw):
        return self._fobj is not raw

    @staticmethod
    def is_buffered(stream):
        """Whether *stream* has, or is, a buffer."""
        return (
            isinstance(stream, (io.BufferedIOBase, io.TextIOBase))
            or getattr(stream, "buffer", None) is not None
        )

    @classmethod
    def buffer_size_for_stream(cls, stream):
        """The block size of the file system below *stream*, or the default size."""
        if isinstance(stream, RingFileIO):
            # It has asked already.
            return stream._blksize
        try:
            size = os.fstat(stream.fileno()).st_blksize
        except (OSError, AttributeError):
            return cls.default_buffer_size
        return size if size > 1 else cls.default_buffer_size

    def _buffered(self, stream, buffering):
        if self.updating:
            kind = io.BufferedRandom
        elif self.reading:
            kind = io.BufferedReader
        else:
            kind = io.BufferedWriter
        try:
            return kind(stream, buffering)
        except AttributeError:
            # Something with a fileno() that is not quite a raw file.
            return stream

    def _make_atomic_write(self, result, raw):
        if result is not raw or self._raw_object_is_new(raw):
            kinds = {FileIO: WriteallFileIO, RingFileIO: WriteallRingFileIO}
            result.__class__ = kinds.get(result.__class__, result.__class__)
        return result

    def _wrapped(self, raw):
        if self.binary and isinstance(raw, io.TextIOBase):
            raise ValueError("Unable to perform binary IO on top of text IO stream")

        result = raw
        buffering = self.buffering
        line_buffering = buffering == 1 or (buffering < 0 and raw.isatty())
        if line_buffering or buffering < 0:
            buffering = self.buffer_size_for_stream(raw)
        if buffering != 0 and not self.is_buffered(raw):
            result = self._buffered(raw, buffering)
        if not self.binary and not isinstance(raw, io.TextIOBase):
            result = io.TextIOWrapper(
                result, self.encoding, self.errors, self.newline, line_buffering
            )

        if result is not raw or self._raw_object_is_new(raw):
            # Somebody else's object keeps the mode that it has.
            try:
                result.mode = self.mode
            except (AttributeError, TypeError):
                pass
        if self.atomic_write and not self.is_buffered(result):
            result = self._make_atomic_write(result, raw)
        return result


class RingOpenDescriptor(OpenDescriptor):
    """Puts a file of the loop's at the bottom, where there is one."""

    def _do_open_raw(self):
        if hasattr(self._fobj, "fileno"):
            return super()._do_open_raw()
        ring, other = open_raw(self._fobj, self.fileio_mode, self.closefd)
        return ring or other or super()._do_open_raw()


class _ClosedIO:
    """What a closed file refers to instead of its parts. It still knows their name."""

    __slots__ = ("name",)

    def __init__(self, io_obj):
        try:
            self.name = io_obj.name
        except AttributeError:
            pass

    def __getattr__(self, name):
        if name == "name":
            raise AttributeError(name)
        raise FileObjectClosed

    def __bool__(self):
        return False


class FileObjectBase:
    """A file made of another, ``io``, some of whose methods a subclass may wrap."""

    #: Methods of ``io`` that become attributes here, where there are any.
    _delegate_methods = (
        "flush",
        "fileno",
        "writable",
        "readable",
        "seek",
        "seekable",
        "tell",
        "read",
        "readline",
        "readlines",
        "read1",
        "readinto",
        "write",
        "writeall",
        "writelines",
        "truncate",
    )

    _io = None

    def __init__(self, descriptor):
        self._io = descriptor.opened()
        self._close = descriptor.closefd

    @property
    def io(self):
        """The file below. It can be replaced."""
        return self._io

    @io.setter
    def io(self, value):
        self._io = value
        self._do_delegate_methods()

    def _do_delegate_methods(self):
        # They are made when they are first asked for: most files use two or three.
        for name in self._delegate_methods:
            self.__dict__.pop(name, None)

    def _wrap_method(self, method):
        """What to offer in place of *method* of ``io``."""
        return method

    @property
    def closed(self):
        """Whether :meth:`close` has been called."""
        return isinstance(self._io, _ClosedIO)

    def close(self):
        """Write what is buffered and close the file. Again does nothing.

        While another greenlet waits in its buffer, a cooperative file refuses with a
        `RuntimeError`, and stays as it is.
        """
        if self.closed:
            return
        fobj = self._io
        self._io = _ClosedIO(fobj)
        try:
            self._do_close(fobj, self._close)
        except BaseException:
            if self._is_still_open():
                self._io = fobj
            raise
        finally:
            # Their methods would keep the parts alive.
            fobj = None
            for name in self._delegate_methods:
                self.__dict__.pop(name, None)

    def _do_close(self, fobj, closefd):
        raise NotImplementedError()  # abstract

    def _is_still_open(self):
        """Whether closing has failed in such a way that nothing has changed."""
        return False

    def __getattr__(self, name):
        found = getattr(self._io, name)
        if name in self._delegate_methods and not self.closed:
            found = self.__dict__[name] = self._wrap_method(found)
        return found

    def __dir__(self):
        offered = [name for name in self._delegate_methods if hasattr(self._io, name)]
        return sorted({*super().__dir__(), *offered} if not self.closed else super().__dir__())

    def __repr__(self):
        return "<%s at 0x%x %s_fobj=%r%s>" % (
            self.__class__.__name__,
            id(self),
            "closed" if self.closed else "",
            self.io,
            self._extra_repr(),
        )

    def _extra_repr(self):
        return ""

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()

    def __iter__(self):
        return self

    def __next__(self):
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    next = __next__

    def __bool__(self):
        return True


class FileObjectBlock(FileObjectBase):
    """A file like any other: it blocks every greenlet while it waits."""

    def __init__(self, fobj, *args, **kwargs):
        super().__init__(OpenDescriptor(fobj, *args, **kwargs))

    def _do_close(self, fobj, closefd):
        fobj.close()


class FileObjectThread(FileObjectBase):
    """A file that does everything, closing included, in a thread pool.

    On a loop that reads and writes files by itself (io_uring) regular files need no pool, and go by
    the loop unless *lock* or *threadpool* is given.

    :keyword lock: true (the default) for one operation at a time, or a semaphore to take for each.
    :keyword threadpool: another pool than the hub's.
    """

    def __init__(self, *args, **kwargs):
        lock = kwargs.pop("lock", True)
        threadpool = kwargs.pop("threadpool", None)
        loop_may = lock is True and threadpool is None
        descriptor = (RingOpenDescriptor if loop_may else OpenDescriptor)(*args, **kwargs)
        self.threadpool = threadpool or get_hub().threadpool
        if lock is True:
            lock = Semaphore()
        elif not lock:
            lock = DummySemaphore()
        self.lock = lock
        if not hasattr(lock, "__enter__"):
            raise TypeError("Expected a Semaphore or boolean, got %r" % type(lock))
        raw = descriptor.opened_raw()
        self._ring = raw if isinstance(raw, RingFileIO) else None
        # Methods handed out look here, and not at us: they must not keep us alive.
        self._io_holder = [descriptor.opened()]
        super().__init__(descriptor)

    def _do_close(self, fobj, closefd):
        self._io_holder[0] = None
        if self._ring is not None:
            waiting(self._ring, self.lock, fobj.close if closefd else fobj.flush)
            return
        try:
            with self.lock:
                self.threadpool.apply(fobj.flush)
        finally:
            if closefd:
                self._close_in_pool(fobj)

    def _close_in_pool(self, fobj):
        # The error comes back as a value: an exception in the pool is reported there as well.
        def close():
            try:
                fobj.close()
            except BaseException:
                return sys.exc_info()[1]
            return None

        error = self.threadpool.apply(close)
        if error is not None:
            raise error

    def _do_delegate_methods(self):
        super()._do_delegate_methods()
        self._io_holder[0] = self._io

    def _extra_repr(self):
        return " threadpool=%r" % (self.threadpool,)

    def _wrap_method(self, method):
        io_holder, lock, threadpool = self._io_holder, self.lock, self.threadpool
        ring = self._ring

        @functools.wraps(method)
        def in_pool(*args, **kwargs):
            if io_holder[0] is None:
                raise FileObjectClosed
            if ring is not None:
                return waiting(ring, lock, method, *args, **kwargs)
            with lock:
                return threadpool.apply(method, args, kwargs)

        return in_pool
