"""Lets the allocations of Python fail one at a time under every operation, in forked children.

    tools/faults/nomemory.py --loop epoll --runs 1000

A child runs the operation twice, lets its n-th allocation fail, and runs it twice more.
MemoryError, any other error and no error at all are right. A crash with a frame of gevent's
extension on the stack, a hang, and an operation that fails afterwards are wrong. Crashes of the
interpreter alone, and the end that Rust's own allocator makes, are counted apart. Prints the
counts by kind and exits with 1 if something is wrong.
"""

from __future__ import annotations

import argparse
import collections
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import traceback

HERE = pathlib.Path(__file__).resolve().parent
# Seconds after which a child hangs. Nothing waits for it but a child that does.
LIMIT = 30 * float(os.environ.get("TIME_SCALE", "1"))
# An operation has no more allocations if so many in turn were not missed.
ENOUGH = 30

FINE, MEMORY, OTHER, BROKEN = range(4)
# What a child ends with that did not come to the failing allocation.
UNTRIED = 100
KINDS = {FINE: "survived", MEMORY: "MemoryError", OTHER: "another error"}
KINDS[BROKEN] = "broken afterwards"
KINDS[UNTRIED] = "broken before"
WRONG = ("broken before", "broken afterwards", "crash with our frame", "hang")


def frame_teller(folder: str):
    """What makes a process tell its frames when a signal ends it; None without a compiler."""
    library = f"{folder}/frames.so"
    try:
        subprocess.run(
            ["cc", "-O1", "-g", "-shared", "-fPIC", "-o", library, HERE / "frames.c"], check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return ctypes.CDLL(library).tell_frames


def child(operation, warm: bool, n: int, last: int, tell) -> int:
    import _testcapi

    if tell is not None:
        tell()
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    if warm:
        operation()
        operation()
    outcome = FINE
    try:
        _testcapi.set_nomemory(n, last)
        try:
            operation()
        finally:
            _testcapi.remove_mem_hooks()
    except MemoryError:
        outcome = MEMORY
    except BaseException:
        outcome = OTHER
    try:
        operation()
        operation()
    except BaseException:
        traceback.print_exc()
        outcome = BROKEN
    return outcome


def run(operation, warm: bool, n: int, last: int, tell, said) -> str:
    """The kind of what came of one child; what it wrote is in `said`."""
    said.seek(0)
    said.truncate()
    pid = os.fork()
    if not pid:
        code = UNTRIED
        try:
            os.dup2(said.fileno(), 2)
            code = child(operation, warm, n, last, tell)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status in KINDS:
        return KINDS[status]
    said.seek(0)
    text = said.read().decode(errors="replace")
    if "Rust's allocator" in text:
        return "abort of Rust's allocator"
    if status == -signal.SIGALRM:
        return "hang"
    ours = "gevent/_core" in text.partition("frames:\n")[2] or "gevent panicked" in text
    if status < 0 and not ours and tell is not None:
        return "abort in CPython"
    return "crash with our frame"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--loop", default=os.environ.get("GEVENT_LOOP", "epoll"))
    parser.add_argument("--runs", type=int, default=1000, help="children over all operations")
    parser.add_argument("--only", help="the operations, by comma")
    parser.add_argument("--from", dest="start", type=int, default=1, help="the first that fails")
    parser.add_argument("--stretch", type=int, default=1, help="how many in a row fail")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    os.environ["GEVENT_LOOP"] = options.loop
    try:
        import _testcapi  # noqa: F401
    except ImportError:
        print("this interpreter has no _testcapi: no allocation can be made to fail")
        print(f"0 passed, 0 failed, {options.runs} skipped")
        return 0
    sys.path.insert(0, str(HERE))
    import nomemory_work

    operations = [(f, True) for f in nomemory_work.WORK.values()]
    operations += [(f, False) for f in nomemory_work.FIRST.values()]
    if options.only:
        operations = [(f, w) for f, w in operations if f.__name__ in options.only.split(",")]
    counts: collections.Counter[str] = collections.Counter()
    quiet = dict.fromkeys(operations, 0)
    n, left = options.start, options.runs
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/said", "w+b") as said:
        tell = frame_teller(folder)
        while left and quiet:
            for operation, warm in list(quiet)[:left]:
                kind = run(operation, warm, n, n + options.stretch, tell, said)
                counts[kind] += 1
                left -= 1
                quiet[operation, warm] = quiet[operation, warm] + 1 if kind == "survived" else 0
                if quiet[operation, warm] == ENOUGH:
                    del quiet[operation, warm]
                if kind in WRONG or (options.verbose and kind.startswith("abort")):
                    said.seek(0)
                    print(f"{operation.__name__}, allocation {n}: {kind}")
                    print(said.read().decode(errors="replace")[-3000:], flush=True)
            n += 1
    for kind, count in sorted(counts.items()):
        print(f"{count:6} {kind}")
    wrong = sum(counts[kind] for kind in WRONG)
    print(f"{counts.total() - wrong} passed, {wrong} failed, 0 skipped")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
