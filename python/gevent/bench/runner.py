"""Starts the children of :mod:`gevent.bench`, in turn, and keeps what they measured."""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = [
    "Contestant",
    "contestants",
    "measure",
]

#: Stands for a folder with files.
FOLDER = None
FILES, FILE_SIZE = 400, 4096

#: By name: what is counted, the worker's function and its numbers, and what it shows.
CASES = {
    "switch": ("switches", "switch", (), "100 greenlets give way to each other"),
    "spawn": ("greenlets", "spawn", (), "start, run and join"),
    "timers": ("timers", "timers", (), "start and cancel a timeout"),
    "sleepers": ("wake-ups", "sleepers", (), "1000 sleep for half a millisecond"),
    "queue": ("round trips", "queue", (), "two pass an item through queues"),
    "thread": ("wake-ups", "thread", (), "a native thread wakes the loop"),
    "echo-64x1": ("round trips", "echo", (64, 1), "64 bytes, 1 connection"),
    "echo-64x100": ("round trips", "echo", (64, 100), "64 bytes, 100 connections"),
    "echo-1kx1000": ("round trips", "echo", (1024, 1000), "1 KiB, 1000 connections"),
    "echo-64kx10": ("round trips", "echo", (65536, 10), "64 KiB, 10 connections"),
    "files": ("files", "files", (FOLDER,), "4 KiB in memory, 100 readers"),
    "files-cold": ("files", "files_cold", (FOLDER,), "4 KiB from the disk, 100 readers"),
    "files-pool": ("files", "files_pool", (FOLDER,), "FileObjectThread, in memory"),
}

#: What a measurement needs besides its time, in seconds: to get ready and to clear up.
READY = 0.03
#: The shortest one that means something, in seconds.
SHORTEST = 0.06
#: Rounds, of which the best counts.
ROUNDS = 3

WORKER = Path(__file__).with_name("worker.py").read_text()


class Contestant:
    """A loop in an interpreter, and the child that runs it."""

    def __init__(self, label, python, kind, loop=None):
        self.label = label
        self.python = python
        self.kind = kind
        self.loop = loop
        self._child = self._errors = None

    def _start(self):
        env = dict(os.environ)
        env.pop("GEVENT_LOOP", None)
        if self.loop:
            env["GEVENT_LOOP"] = self.loop
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by `end`)
        self._child = subprocess.Popen(
            [self.python, "-c", WORKER, self.kind],
            env=env,
            # Elsewhere than in a folder with modules of whatever names.
            cwd=tempfile.gettempdir(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def call(self, case, seconds=0, details=(), limit=60):
        """What the child answers, or a text that says what went wrong."""
        try:
            if self._child is None:
                self._start()
            self._child.stdin.write(json.dumps([case, seconds, *details]) + "\n")
            self._child.stdin.flush()
            if not select.select([self._child.stdout], [], [], limit)[0]:
                self._child.kill()
                self.end()
                return "no answer within %d s" % limit
            line = self._child.stdout.readline()
        except OSError as ex:
            line = ""
            if self._child is None:
                self._errors.close()
                return str(ex)
        if not line:
            return self._last_words()
        answer = json.loads(line)
        return answer.get("error", answer)

    def _last_words(self):
        status = self._child.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        self.end()
        return lines[-1] if lines else "exit status %d" % status

    def end(self):
        """End the child, if there is one; the next call starts another."""
        if self._child is None:
            return
        child, self._child = self._child, None
        for pipe in (child.stdin, child.stdout, self._errors):
            try:
                pipe.close()
            except OSError:
                pass
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def contestants(loops, pythons):
    """Who takes part, ``(contestant, what it says of itself)``; of others ``(label, why not)``."""
    asked = [Contestant(loop, sys.executable, "gevent", loop) for loop in loops or _own_loops()]
    if not loops:
        asked += [Contestant(kind, sys.executable, kind) for kind in ("asyncio", "uvloop")]
    else:
        for one in asked:
            if one.label in ("asyncio", "uvloop"):
                one.kind, one.loop = one.label, None
    present, absent = [], []
    for python in pythons:
        asked.append(Contestant("gevent of " + python, python, "gevent"))
        if not any(c.kind == "uvloop" and _is_there(c) for c in asked):
            asked.append(Contestant("uvloop", python, "uvloop"))
    seen = set()
    for one in asked:
        about = one.call("describe")
        one.end()
        if isinstance(about, str):
            absent.append((one.label, about))
            continue
        if one.label.startswith("gevent of "):
            one.label = "gevent " + about["version"]
        if one.label not in seen:
            seen.add(one.label)
            present.append((one, about))
    absent = [(label, why) for label, why in absent if label not in seen]
    return present, absent


def _is_there(contestant):
    answer = contestant.call("describe")
    contestant.end()
    return not isinstance(answer, str)


def _own_loops():
    from gevent import _core

    return _core.loop_names()


def _make_files(folder):
    for n in range(FILES):
        with open(os.path.join(folder, "%d" % n), "wb") as file:
            file.write(os.urandom(FILE_SIZE))
    # What is not on the disk yet cannot be forgotten.
    os.sync()


def measure(present, cases, seconds, progress):
    """``{case: {label: [run, ...]}}``, ``[(case, label, what went wrong)]``, and how.

    A run is rounds per second, and rounds per second of the processors' time.

    A round goes over everything before the next begins, so that whatever disturbs disturbs all
    alike, and it begins with new children. There are fewer rounds if the machine is too slow for
    them.
    """
    with tempfile.TemporaryDirectory(prefix="gevent-bench-") as folder:
        if any(FOLDER in CASES[case][2] for case in cases):
            _make_files(folder)
        return _rounds(present, cases, seconds, progress, folder)


def _rounds(present, cases, seconds, progress, folder):
    total = ROUNDS * len(present) * len(cases)
    each = max(SHORTEST, seconds / total - READY)
    results = {case: {one.label: [] for one, _ in present} for case in cases}
    failed, done, begun = [], 0, time.monotonic()
    for turn in range(ROUNDS):
        spent = time.monotonic() - begun
        if turn and spent * (turn + 1) / turn > seconds * 1.25:
            total = done
            break
        for case in cases:
            _, function, details, _ = CASES[case]
            details = [folder if detail is FOLDER else detail for detail in details]
            # Each begins once: who comes first finds another machine than who comes last.
            for one, _ in present[turn % len(present) :] + present[: turn % len(present)]:
                progress(done, total, time.monotonic() - begun, case, one.label)
                done += 1
                if any(f[:2] == (case, one.label) for f in failed):
                    continue
                got = one.call(function, each, details, limit=each * 4 + 30)
                if isinstance(got, str):
                    failed.append((case, one.label, got))
                elif not got["rounds"]:
                    failed.append((case, one.label, "it did not get through once"))
                else:
                    run = [got["rounds"] / got["wall"], got["rounds"] / max(got["cpu"], 1e-6)]
                    results[case][one.label].append(run)
        for one, _ in present:
            one.end()
    progress(total, total, time.monotonic() - begun, "", "")
    how = {"rounds": done // (len(present) * len(cases)), "seconds": each}
    return results, failed, how
