"""Child processes with limits, and the counts they print: shared by the verbs of the Makefile.

Nothing here knows gevent. A child gets its own process group, so that a limit ends it together
with whatever it started and nothing else.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SCALE = float(os.environ.get("TIME_SCALE") or 1)

# A shell ignores the interrupt in what it starts with `&`, children inherit that, tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# io_uring_setup(2) has one number on every architecture that got it after the tables were unified.
_SYS_IO_URING_SETUP = 425


@dataclasses.dataclass
class Count:
    """Tests that passed, failed and were skipped, with the words that explain the last two."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)

    def __iadd__(self, other: Count) -> Count:
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped
        self.notes += other.notes
        return self

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"

    def end(self) -> int:
        """Print each note once, and the sum; return the exit code of the run."""
        for note in dict.fromkeys(self.notes):
            print(note)
        print(self)
        return 1 if self.failed or not self.passed else 0


@dataclasses.dataclass
class Done:
    """How a child ended: its exit code (None: ended by the limit), its output, its seconds."""

    code: int | None
    out: str
    seconds: float

    def tail(self, lines: int = 60) -> str:
        return "\n".join("    | " + line for line in self.out.splitlines()[-lines:])

    def ending(self) -> str:
        if self.code is None:
            return "time limit"
        if self.code < 0:
            return f"killed by {signal.Signals(-self.code).name}"
        return f"exit code {self.code}"


def signal_group(pid: int, number: int) -> None:
    """Signals the group that was made for a child of ours; one that is gone is fine."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        pass


def run(command, limit: float, env: dict[str, str] | None = None, cwd=None) -> Done:
    """Runs a command to its end or to `limit` seconds (scaled by TIME_SCALE).

    At the limit the child gets SIGABRT first: with faulthandler on, that prints every thread's
    Python stack into the output that is returned.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            [str(word) for word in command],
            cwd=cwd or ROOT,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = child.wait(limit * SCALE)
        except subprocess.TimeoutExpired:
            code = None
            child.send_signal(signal.SIGABRT)
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                pass
        finally:
            signal_group(child.pid, signal.SIGKILL)
            child.wait()
        output.seek(0)
        text = output.read().decode("utf-8", "replace")
    return Done(code, text, time.monotonic() - started)


def count_pytest(done: Done, name: str) -> Count:
    """Reads pytest's closing line. A run without one (a crash, a limit) is one failure."""
    ends = re.findall(r"^=*\s*((?:\d+ [a-z]+,? ?)+) in [\d.]+s.*$", done.out, re.M)
    got = dict.fromkeys(("passed", "failed", "error", "skipped", "xfailed", "xpassed"), 0)
    for number, word in re.findall(r"(\d+) ([a-z]+)", ends[-1] if ends else ""):
        word = "error" if word == "errors" else word
        if word in got:
            got[word] += int(number)
    count = Count(
        got["passed"] + got["xfailed"],
        got["failed"] + got["error"] + got["xpassed"],
        got["skipped"],
    )
    # 5 is "no test collected": a file whose tests are all for another system.
    if done.code not in (0, 5) and not count.failed:
        count.failed = 1
    if count.failed:
        count.notes.append(f"{name}: {done.ending()}")
    count.notes += [
        f"skipped: {line}" for line in re.findall(r"^SKIPPED \[\d+\] (.*)$", done.out, re.M)
    ]
    return count


def count_cargo(done: Done, name: str) -> Count:
    """Adds up cargo's `test result` lines. A binary that died without one is one failure."""
    count = Count()
    for passed, failed, ignored in re.findall(
        r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", done.out, re.M
    ):
        count += Count(int(passed), int(failed), int(ignored))
    if done.code != 0:
        count.failed = max(count.failed, 1)
        count.notes.append(f"{name}: {done.ending()}")
    return count


def loops() -> tuple[list[str], list[str]]:
    """The loops that this machine can run, and a "skipped" line for each that it cannot.

    Asked of the kernel and not of gevent, so that a loop which gevent breaks is a failure.
    """
    if sys.platform != "linux":
        return ["kqueue"], ["skipped: epoll, uring (not Linux)"]
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    params = ctypes.create_string_buffer(120)
    fd = libc.syscall(_SYS_IO_URING_SETUP, 1, params)
    if fd >= 0:
        os.close(fd)
        return ["epoll", "uring"], []
    name = errno.errorcode.get(ctypes.get_errno(), "?")
    return ["epoll"], [f"skipped: uring (io_uring_setup: {name} on Linux {platform.release()})"]
