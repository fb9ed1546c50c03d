"""Faults on purpose, part by part, on each loop: `make faults`.

    run.py [--quick] [--loops NAME ...] [PART ...]

The parts are scripts beside this one, each with a closing line of its own: calls (system calls that
fail), limits (few descriptors, little memory), refused (calls that a sandbox forbids), forks
(signals around them), cycles (nothing may be left), attacks (clients that mean harm), nomemory
(Python's allocations fail, one at a time), debug_python and sanitizers (what checks more than
usual). `--quick` is the short form that belongs to `make test`. Ends
with `N passed, N failed, N skipped`.
"""

from __future__ import annotations

import argparse
import re
import sys
import time

import common
import runs

#: part -> its arguments in full and in the short form, and its limit in seconds for one loop.
PARTS = {
    "calls": ([], ["--quick"], 1800),
    "limits": ([], ["--quick"], 1200),
    "refused": ([], ["--quick"], 1800),
    "cycles": ([], ["--quick"], 1800),
    "forks": ([], ["--quick"], 600),
    "attacks": ([], ["--quick"], 900),
    "nomemory": (["--runs", "1000"], ["--runs", "60"], 1800),
    "debug_python": ([], [], 7200),
    "sanitizers": ([], [], 7200),
}
#: Builds of their own, once and not for each loop.
ONCE = ["debug_python", "sanitizers"]
#: What the short form has; the rest finds something in too few cycles, or still finds a fault.
SHORT = ["calls", "limits", "refused", "forks", "attacks"]


def part(name: str, loop: str, quick: bool) -> runs.Count:
    full, short, limit = PARTS[name]
    script = common.HERE / f"{name}.py"
    command = [sys.executable, "-X", "faulthandler", script, "--loop", loop]
    done = runs.run([*command, *(short if quick else full)], limit, {"GEVENT_LOOP": loop})
    ends = re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", done.out, re.M)
    count = runs.Count(*map(int, ends[-1])) if ends else runs.Count()
    if done.code != 0:
        count.failed = max(count.failed, 1)
        count.notes.append(f"{name} [{loop}]: {done.ending()}")
        print(done.tail(80))
    else:
        told = re.findall(r"^.*(?:skipped: |apart|calls \[).*$", done.out, re.M)
        print("\n".join(f"    | {line}" for line in dict.fromkeys(told)))
    return count


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--loops", nargs="+")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    options = parser.parse_args()
    loops, skipped = runs.loops()
    loops = options.loops or [*loops, *([] if options.quick or "kqueue" in loops else ["kqueue"])]
    total = runs.Count(skipped=len(skipped), notes=list(skipped))
    rows = []
    for loop in loops:
        for name in options.parts or (SHORT if options.quick else PARTS):
            if name in ONCE and loop != loops[0]:
                continue
            print(f"== {name} [{loop}]", flush=True)
            started = time.monotonic()
            count = part(name, loop, options.quick)
            rows.append(f"{name:<10} {loop:<7} {count}  ({time.monotonic() - started:.0f} s)")
            print(rows[-1], flush=True)
            total += count
    print("\n" + "\n".join(rows))
    return total.end()


if __name__ == "__main__":
    sys.exit(main())
