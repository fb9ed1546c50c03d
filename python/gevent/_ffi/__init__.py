"""Debug levels of upstream's CFFI loops, which the native loop does not use.

``GEVENT_DEBUG`` is read so that a wrong value is an error here as it is there.
"""

import os
import sys

__all__ = []

CRITICAL = 1
ERROR = 3
DEBUG = 5
TRACE = 9

GEVENT_DEBUG_LEVEL = {"CRITICAL": CRITICAL, "ERROR": ERROR, "DEBUG": DEBUG, "TRACE": TRACE}[
    os.environ.get("GEVENT_DEBUG", "CRITICAL").upper()
]


def _pid_dbg(*args, **kwargs):
    print(os.getpid(), *args, file=sys.stderr, **kwargs)


def _dbg(*args, **kwargs):
    if GEVENT_DEBUG_LEVEL >= TRACE:
        _pid_dbg(*args, **kwargs)
