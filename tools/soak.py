"""Runs tools/soak_work.py on every loop and watches that nothing grows; then tools/soak_tls.py.

    soak.py [--seconds S] [--bytes N] [--stress-seconds S] [--stress-times N] [--cycles N]

Last tools/stress_threads.py, many times on the first loop and a few times on the others, and
tools/leak_cycles.py on each.

After a warm-up of a quarter of the time, resident memory, open descriptors, threads, live
greenlets and Python objects may not be larger at the end than a small margin above what they were.
Two TLS ends send each other N bytes (10 GB) under kills and timeouts, and each has to arrive.
Ends with `N passed, N failed, N skipped`.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import runs


def sample(pid: int) -> dict[str, int]:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return {
        "resident KiB": int(fields["VmRSS"].split()[0]),
        "threads": int(fields["Threads"]),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "mappings": pathlib.Path(f"/proc/{pid}/maps").read_text().count("\n"),
    }


# name -> (share, absolute) that the end may lie above the warm state
MARGIN = {
    "resident KiB": (0.10, 4096),
    "threads": (0, 0),
    "descriptors": (0.05, 64),
    "mappings": (0.10, 32),
    "greenlets": (0.10, 64),
    "objects": (0.02, 2000),
}


def soak(loop: str, seconds: float) -> list[str]:
    """Runs one loop; returns what went wrong."""
    with tempfile.TemporaryFile("w+") as errors:
        return watch(loop, seconds, errors)


def watch(loop: str, seconds: float, errors) -> list[str]:
    child = subprocess.Popen(
        [sys.executable, str(runs.ROOT / "tools" / "soak_work.py")],
        env={**os.environ, "GEVENT_LOOP": loop, "PYTHONFAULTHANDLER": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,
    )
    last: list[str] = []
    reader = threading.Thread(target=lambda: [last.append(line) for line in child.stdout])
    reader.start()
    started = time.monotonic()
    samples: list[tuple[float, dict[str, int]]] = []
    try:
        while (now := time.monotonic() - started) < seconds and child.poll() is None:
            time.sleep(1)
            if child.poll() is None and last:
                got = sample(child.pid)
                _, got["greenlets"], got["objects"] = map(int, last[-1].split())
                samples.append((now, got))
            if now > 60 and not last:
                break
        ended = child.poll()
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGABRT if not last else signal.SIGTERM)
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                pass
        runs.signal_group(child.pid, signal.SIGKILL)
        child.wait()
        reader.join(5)
    rounds = last[-1].split()[0] if last else "0"
    print(f"[{loop}] {rounds} rounds in {time.monotonic() - started:.0f} s", flush=True)
    if ended is not None or not last:
        errors.seek(0)
        return [f"[{loop}] the work ended with {ended}:\n{errors.read()[-3000:]}"]
    warm = [got for at, got in samples if seconds / 4 <= at <= seconds / 2]
    late = [got for at, got in samples if at >= seconds * 3 / 4]
    if not warm or not late:
        return [f"[{loop}] too few samples; give it more --seconds"]
    wrong = []
    for name, (share, absolute) in MARGIN.items():
        # The lowest of each window: a peak is no growth.
        before, after = (min(got[name] for got in window) for window in (warm, late))
        grew = after > before * (1 + share) + absolute
        print(f"  {name:<14} {before:>9} -> {after:>9}{'  GREW' if grew else ''}")
        if grew:
            wrong.append(f"[{loop}] {name} grew from {before} to {after}")
    return wrong


def exchange(loop: str, total: float) -> list[str]:
    """Runs the TLS exchange on one loop; returns what went wrong."""
    done = subprocess.run(
        [sys.executable, str(runs.ROOT / "tools" / "soak_tls.py"), "--bytes", str(total)],
        env={**os.environ, "GEVENT_LOOP": loop, "PYTHONFAULTHANDLER": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        # A tenth of what an idle machine does.
        timeout=60 + total / 40e6,
        check=False,
    )
    print(f"[{loop}] TLS: {done.stdout.strip()}", flush=True)
    if done.returncode:
        return [f"[{loop}] the TLS exchange ended with {done.returncode}:\n{done.stderr[-3000:]}"]
    return []


def counted(loop: str, limit: float, script: str, *args: object) -> runs.Count:
    """Runs a script that counts by itself, on one loop."""
    command = [sys.executable, runs.ROOT / "tools" / script, *args]
    done = runs.run(command, limit, {"GEVENT_LOOP": loop})
    print(f"[{loop}] {script}\n{done.tail()}", flush=True)
    ends = re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", done.out, re.M)
    count = runs.Count(*map(int, ends[-1])) if ends else runs.Count()
    if done.code != 0:
        count.failed = max(count.failed, 1)
        count.notes.append(f"{script} [{loop}]: {done.ending()}")
    return count


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--bytes", type=float, default=10e9)
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--stress-seconds", type=float, default=60)
    parser.add_argument("--stress-times", type=int, default=20)
    parser.add_argument("--cycles", type=int, default=1_000_000)
    options = parser.parse_args()
    loops, skipped = runs.loops()
    total = runs.Count(skipped=len(skipped), notes=list(skipped))
    for loop in loops:
        wrong = soak(loop, options.seconds)
        total += runs.Count(passed=not wrong, failed=bool(wrong), notes=wrong)
        wrong = exchange(loop, options.bytes)
        total += runs.Count(passed=not wrong, failed=bool(wrong), notes=wrong)
    for loop in loops:
        times = options.stress_times if loop == loops[0] else min(options.stress_times, 3)
        seconds = options.stress_seconds
        limit = times * (seconds + 90)
        stress = ("stress_threads.py", "--seconds", seconds, "--times", times)
        total += counted(loop, limit, *stress)
        total += counted(loop, 1800, "leak_cycles.py", "--cycles", options.cycles)
    print("\n".join(total.notes))
    print(total)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
