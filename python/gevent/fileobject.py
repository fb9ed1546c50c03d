"""Files whose methods let other greenlets run.

``FileObject(fobj, mode='r', buffering=-1, closefd=True, encoding=None, errors=None, newline=None)``
takes what :func:`open` does, and an object with a ``fileno()`` besides. It is one of:

* :class:`FileObjectPosix`, for sockets, pipes and terminals, which can be waited for;
* :class:`FileObjectThread`, which does everything in the thread pool, for all others;
* :class:`FileObjectBlock`, which just blocks, to compare with.

``GEVENT_FILE`` chooses (``posix``, ``thread``, ``block``, or the full name of a class), before this
module is first imported.
"""

from gevent._config import config
from gevent._fileobjectcommon import FileObjectBlock, FileObjectThread

__all__ = [
    "FileObject",
    "FileObjectBlock",
    "FileObjectPosix",
    "FileObjectThread",
]

try:
    import fcntl
except ImportError:  # Windows
    __all__.remove("FileObjectPosix")
else:
    del fcntl
    from gevent._fileobjectposix import FileObjectPosix

FileObject = config.fileobject
