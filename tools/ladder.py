"""The test ladder: Rust, then on every loop our Python tests and upstream's suite, and greenlet's.

    ladder.py [--jobs N] [rust] [conformance] [models] [python] [upstream] [greenlet] [programs]
              [sdist] [faults]

Without a step's name all but `conformance` (a part of `rust`) and `models` (what threads share,
under the model checker) run, and upstream's suite is left out on a loop that is an emulation here
(kqueue on Linux), as it is there for tests alone. Each Python test file is a process of its own: a
crash or a hang in native code costs that file and not the run. Ends with one line `N passed, N
failed, N skipped`; the exit code is 1 when anything failed.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import sys
import time

import runs

RUST_LIMIT = 1500
FILE_LIMIT = 240
UPSTREAM_LIMIT = 1500
GREENLET_LIMIT = 900
PROGRAMS_LIMIT = 1200
FAULTS_LIMIT = 1500
SDIST_LIMIT = 1800

STEPS = [
    "rust",
    "conformance",
    "models",
    "python",
    "upstream",
    "greenlet",
    "programs",
    "sdist",
    "faults",
]


def rust(extra: tuple[str, ...] = ("--workspace",), name: str = "rust") -> runs.Count:
    done = runs.run(
        ["cargo", "test", "--locked", "--no-fail-fast", *extra], RUST_LIMIT, {"RUST_BACKTRACE": "1"}
    )
    count = runs.count_cargo(done, name)
    print("\n".join(re.findall(r"^\d+ cases; ran: .*$", done.out, re.M)))
    if count.failed:
        failing = re.findall(r"^test .* FAILED$|^error.*$", done.out, re.M)
        print("\n".join(failing[:40]))
        print(done.tail(120))
    return count


def models() -> runs.Count:
    """gevent-sync under loom, which tries every order of the threads' steps."""
    command = ["cargo", "test", "--locked", "--release", "--lib", "-p", "gevent-sync"]
    # In a folder of its own: with other flags, everything is built anew.
    flags = {"RUSTFLAGS": "--cfg loom", "CARGO_TARGET_DIR": str(runs.ROOT / "target" / "loom")}
    done = runs.run(command, RUST_LIMIT, flags)
    count = runs.count_cargo(done, "models")
    if count.failed:
        print(done.tail(120))
    return count


def python(loop: str, jobs: int) -> runs.Count:
    files = sorted((runs.ROOT / "tests" / "python").rglob("test_*.py"))
    env = {
        "GEVENT_LOOP": loop,
        "PYTHONDONTWRITEBYTECODE": "1",
        # Monkey-patched tests and pytest's own plugins do not mix; only the two we use are loaded.
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }

    def one(path) -> runs.Count:
        name = f"{path.relative_to(runs.ROOT)} [{loop}]"
        done = runs.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-p",
                "pytest_timeout",
                "-p",
                "no:cacheprovider",
                path,
            ],
            FILE_LIMIT,
            env,
        )
        count = runs.count_pytest(done, name)
        if count.failed:
            print(f"FAILED {name}: {done.ending()}\n{done.tail(80)}", flush=True)
        return count

    total = runs.Count()
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for count in pool.map(one, files):
            total += count
    return total


def counted(name: str, command: list[str], limit: float, quiet: str) -> runs.Count:
    """A runner that counts by itself, in its closing line. Lines like `quiet` are left out."""
    done = runs.run([sys.executable, *command], limit)
    print("\n".join(line for line in done.out.splitlines() if not re.search(quiet, line)))
    ends = re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", done.out, re.M)
    count = runs.Count(*map(int, ends[-1])) if ends else runs.Count()
    if done.code != 0:
        count.failed = max(count.failed, 1)
        count.notes.append(f"{name}: {done.ending()}")
    return count


def upstream(loop: str, jobs: int) -> runs.Count:
    command = ["tests/upstream/run.py", "--loop", loop, "--jobs", str(jobs)]
    return counted(f"upstream [{loop}]", command, UPSTREAM_LIMIT, "^ok ")


def programs(jobs: int) -> runs.Count:
    command = ["tools/programs.py", "--quick", "--jobs", str(jobs)]
    return counted("programs", command, PROGRAMS_LIMIT, r" 0 failed, \d+ skipped  \(")


def greenlet() -> runs.Count:
    return counted("greenlet", ["tests/greenlet_suite.py"], GREENLET_LIMIT, r" s  ok$")


def faults() -> runs.Count:
    """The short form of `make faults`."""
    return counted("faults", ["tools/faults/run.py", "--quick"], FAULTS_LIMIT, "^$")


def sdist() -> runs.Count:
    return counted("sdist", ["tools/sdist.py"], SDIST_LIMIT, "^$")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("steps", nargs="*", choices=[*STEPS, []])
    options = parser.parse_args()
    steps = options.steps or [
        "rust",
        "greenlet",
        "programs",
        "sdist",
        "faults",
        "python",
        "upstream",
    ]
    loops, skipped = runs.loops()
    total = runs.Count(skipped=len(skipped), notes=list(skipped))
    rows = []

    def step(name, call, *args) -> None:
        nonlocal total
        print(f"== {name}", flush=True)
        started = time.monotonic()
        count = call(*args)
        rows.append(f"{name:<18} {count}  ({time.monotonic() - started:.0f} s)")
        print(rows[-1], flush=True)
        total += count

    if "rust" in steps:
        step("rust", rust)
    if "greenlet" in steps:
        step("greenlet", greenlet)
    if "models" in steps:
        step("models", models)
    if "conformance" in steps:
        step("conformance", rust, ("-p", "gevent-conformance"), "conformance")
    if "programs" in steps:
        step("programs", programs, options.jobs)
    if "faults" in steps:
        step("faults", faults)
    if "sdist" in steps:
        step("sdist", sdist)
    emulated = [] if "kqueue" in loops else ["kqueue"]
    for loop in loops + emulated:
        if "python" in steps:
            step(f"python [{loop}]", python, loop, options.jobs)
        if "upstream" in steps and (options.steps or loop in loops):
            step(f"upstream [{loop}]", upstream, loop, options.jobs)

    print("\n" + "\n".join(rows))
    return total.end()


if __name__ == "__main__":
    sys.exit(main())
