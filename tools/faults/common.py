"""What the parts of `make faults` share: where `runs` is, and children that report their steps.

A part is a script that takes `--loop NAME` and `--quick`, prints what it found and ends with the
line `N passed, N failed, N skipped`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import pathlib
import selectors
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import runs  # noqa: E402

_PR_SET_PDEATHSIG = 1
#: The end of a process whose memory Rust's allocator could not get, by the policy of the project.
RUST_OUT_OF_MEMORY = "Rust's allocator has no memory for"

HERE = pathlib.Path(__file__).resolve().parent
#: Seconds that one step may take. It needs some milliseconds: this is a hang.
STEP_LIMIT = 25
#: After so many crashes and hangs of one child's steps the rest of them is given up.
ENOUGH = 6


def arguments(description: str, **more) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--loop", default=os.environ.get("GEVENT_LOOP") or "epoll")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="", help="what the names of the steps have to contain")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--from", type=int, default=0, dest="first", help=argparse.SUPPRESS)
    for name, default in more.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser.parse_args()


def end_with_parent() -> None:
    """Called first by a child: it ends when its parent does, and what it forks ends with it.

    A fault may leave a forked process in the middle of its parent's work: it would fork again.
    """
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    def in_child():
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.alarm(STEP_LIMIT)

    os.register_at_fork(after_in_child=in_child)


def report(**fields) -> None:
    """Called by a child: one step is over, or begins."""
    os.write(report.fd, json.dumps(fields).encode() + b"\n")


#: A descriptor of the child's own, so that nothing the work prints comes between.
report.fd = 1


def steps(command: list[object], env: dict[str, str], name: str) -> runs.Count:
    """Runs a child that reports `begin=NAME` and `end=None or what went wrong` for each step.

    A child that crashes or hangs has failed that step; another one goes on behind it.
    """
    count = runs.Count()
    first = 0
    broken = 0
    while True:
        first, ending = one_child([*command, "--from", first], env, name, count)
        if ending is None:
            return count
        if RUST_OUT_OF_MEMORY in ending:
            count.skipped += 1
            count.notes.append("skipped: an end by Rust's allocator, which said so")
            continue
        count.failed += 1
        count.notes.append(ending)
        print(ending, flush=True)
        broken += 1
        if broken >= ENOUGH:
            count.notes.append(f"{name}: gave up after {broken} crashes and hangs")
            return count


def one_child(command, env, name, count: runs.Count) -> tuple[int, str | None]:
    """Runs one child. Returns where the next has to begin, and how this one failed."""
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            [str(word) for word in command],
            env={**os.environ, "PYTHONFAULTHANDLER": "1", "RUST_BACKTRACE": "1", **env},
            cwd=runs.ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        current, at, number, done = "its start", "", -1, False
        try:
            for line in lines(child, STEP_LIMIT * runs.SCALE):
                fields = json.loads(line)
                if "begin" in fields:
                    current, at, number = fields["begin"], "", fields["number"]
                elif "done" in fields:
                    done = True
                elif "at" in fields:
                    at = f" ({fields['at']})"
                elif fields.get("skip"):
                    count.skipped += 1
                    count.notes.append(f"skipped: {fields['skip']}")
                elif fields.get("end"):
                    count.failed += 1
                    count.notes.append(f"{name}: {current}: {fields['end']}")
                    print(count.notes[-1], flush=True)
                else:
                    count.passed += 1
            hung = child.poll() is None and not done
            if hung:
                child.send_signal(signal.SIGABRT)
            try:
                code = child.wait(10)
            except subprocess.TimeoutExpired:
                code = None
        finally:
            runs.signal_group(child.pid, signal.SIGKILL)
            child.wait()
        errors.seek(0)
        said = errors.read()
    if done and code == 0 and "panicked at" not in said:
        return number + 1, None
    how = "hang" if hung else runs.Done(code, "", 0).ending()
    if "panicked at" in said and not hung:
        how += ", with a panic"
    tail = "\n".join("    | " + line for line in said.splitlines()[-40:])
    return number + 1, f"{name}: {current}{at}: {how}\n{tail}"


def lines(child, limit: float):
    """The lines of a child's output, up to its end or until none came for that many seconds."""
    waiting = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while selector.select(limit):
            data = os.read(child.stdout.fileno(), 65536)
            if not data:
                child.wait(10)
                return
            *whole, waiting = (waiting + data).split(b"\n")
            yield from whole


def python(script: str, *args: object) -> list[object]:
    return [sys.executable, "-X", "faulthandler", HERE / script, *args]
