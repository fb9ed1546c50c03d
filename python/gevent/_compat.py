"""Facts about the interpreter and the platform, and small aliases that the other modules share.

Nothing of gevent may be imported here: everything else imports this module.
"""

import os
import sys

import _imp
from abc import ABC
from os import PathLike, fsdecode, fsencode, fspath
from time import get_clock_info, monotonic, perf_counter

_VERSION = sys.version_info[:2]
PY311 = _VERSION >= (3, 11)
PY312 = _VERSION >= (3, 12)
PY313 = _VERSION >= (3, 13)
PY314 = _VERSION >= (3, 14)
PYPY = sys.implementation.name == "pypy"

WIN = sys.platform[:3] == "win"
LINUX = sys.platform[:5] == "linux"
OSX = MAC = sys.platform == "darwin"

#: There are no compiled twins of Python modules here, whatever the environment asks for:
#: what is native lives in ``gevent._core`` and has no Python version.
GLOBAL_PURE_PYTHON = PURE_PYTHON = True
_GEVENT_PURE_PYTHON = os.environ.get("GEVENT_PURE_PYTHON")


def pure_python_module(mod_name):
    """Tell whether *mod_name* runs from its ``.py`` file; always true here."""
    return True


string_types = (str,)
integer_types = (int,)
text_type = str
native_path_types = (str, bytes)
hostname_types = (str, bytes, bytearray)
thread_mod_name = "_thread"

iteritems = dict.items
itervalues = dict.values
xrange = range
izip = zip
_fspath = fspath

imp_acquire_lock = _imp.acquire_lock
imp_release_lock = _imp.release_lock


def NativeStrIO():
    """Return an empty in-memory stream of `str`."""
    from io import StringIO

    return StringIO()


def reraise(t, value, tb=None):
    """Raise *value* with exactly the traceback *tb*; *t*, its type, is not needed."""
    if value.__traceback__ is not tb:
        value = value.with_traceback(tb)
    raise value


def exc_clear():
    """Do nothing: Python 3 forgets a handled exception by itself."""


def get_this_psutil_process():
    """Return a new ``psutil.Process`` of this process, or `None`.

    `None` means that psutil is missing or may not read our memory figures. It is imported here
    and not above, because it imports modules that monkey-patching wants to see first.
    """
    try:
        import psutil
    except ImportError:
        return None
    try:
        this = psutil.Process()
        this.memory_full_info()
    except psutil.AccessDenied:
        return None
    return this


# Re-exported on purpose: other modules, and programs, take these from here.
_EXPORTED = (ABC, PathLike, fsdecode, fsencode, get_clock_info, monotonic, perf_counter)
