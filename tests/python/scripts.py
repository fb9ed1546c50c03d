"""Runs a piece of Python in a process of its own, where a crash or a hang costs one test."""

import dataclasses
import os
import subprocess
import sys
import textwrap

SCALE = float(os.environ.get("TIME_SCALE") or 1)


@dataclasses.dataclass
class Done:
    """How it ended: its exit code, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def lines(self):
        return self.out.splitlines()


def run(source, timeout=30, **env):
    """Run *source*; what it prints is in the result. A process that hangs fails the test."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(source)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout * SCALE,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **env},
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def lines_of(source, timeout=30, **env):
    """The lines that *source* prints. It has to end well and to leave stderr empty."""
    done = run(source, timeout, **env)
    assert (done.code, done.err) == (0, ""), f"{done.code}\n{done.out}\n{done.err}"
    return done.lines
