"""One round of work in a forked child, under something that may end it: how did it end?

The parent has imported everything and has no hub yet, so a child costs some milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import tempfile
import traceback

import runs
from gevent import monkey

FINE, EXPLAINED, WRONG = 0, 1, 2


_PR_SET_PDEATHSIG = 1


def child(body, errors) -> None:
    """Never returns. What it forks itself has no more time than it has."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    os.register_at_fork(after_in_child=lambda: signal.alarm(60))
    os.dup2(errors.fileno(), 2)
    code = WRONG
    try:
        code = body()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended(body, limit: float) -> tuple[int | None, str]:
    """Runs `body`, which returns a code, in a child. How that ended, and what it wrote."""
    # Unpatched: this process has no hub, and so a child begins without one.
    fork, waitpid = (monkey.get_original("os", name) for name in ("fork", "waitpid"))
    select = monkey.get_original("select", "select")
    with tempfile.TemporaryFile() as errors:
        pid = fork()
        if not pid:
            child(body, errors)
        fd = os.pidfd_open(pid)
        try:
            over = select([fd], [], [], limit * runs.SCALE)[0]
            if not over:
                signal.pidfd_send_signal(fd, signal.SIGABRT)
                if not select([fd], [], [], 5)[0]:
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)
        status = waitpid(pid, 0)[1]
        errors.seek(0)
        said = errors.read().decode("utf-8", "replace")
        return (os.waitstatus_to_exitcode(status) if over else None), said


def verdict(code: int | None, said: str) -> str | None:
    """What is wrong with such an end, or None."""
    if code in (FINE, EXPLAINED) and "panicked at" not in said:
        return None
    how = runs.Done(code, "", 0).ending() if code is not None else "hang"
    return how + "\n" + "\n".join("    | " + line for line in said.splitlines()[-25:])
