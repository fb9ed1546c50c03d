"""The Rust tests under AddressSanitizer, and Miri where it is installed.

    sanitizers.py [--loop NAME] [--quick] [--only TEXT]

The compiler's own sanitizer runtime is used, by a flag that the stable compiler has under
RUSTC_BOOTSTRAP. Each crate is built anew in a folder of its own. What cannot be had is named as
skipped. The loop's name is taken and not used: these tests run on every loop by themselves.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import common
import runs

CRATES = ["gevent-hub-core", "gevent-sync", "gevent-net", "gevent-wsgi"]
#: Tests that cannot be had under AddressSanitizer -> why.
NOT_HERE = {
    "stack::overflow::": "its own handler of SIGSEGV comes first",
    "address_space_that_runs_out": "its shadow needs the address space",
    "idle_trimming_gives_memory_back": "its allocator keeps what is freed",
    "sleeps_are_dear": "it is slower than the times that are looked at",
}
#: Crates, and which of their tests, that make no system call.
MIRI = {"gevent-sync": "state::", "gevent-wsgi": "scan::"}


def output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def host() -> str:
    lines = output("rustc", "-vV").splitlines()
    return next((line.split()[1] for line in lines if line.startswith("host:")), "")


def address(crate: str, target: str) -> runs.Count:
    folder = runs.ROOT / "target" / "asan"
    env = {
        "RUSTC_BOOTSTRAP": "1",
        "RUSTFLAGS": "-Zsanitizer=address",
        "CARGO_TARGET_DIR": str(folder),
        # The runtime knows no fibers: a frame that is left by a switch is not one that is gone.
        # And what a process keeps to its end, such as a pool of stacks, is no leak.
        "ASAN_OPTIONS": "detect_stack_use_after_return=0:detect_leaks=0:use_sigaltstack=0",
    }
    command = ["cargo", "test", "--locked", "--lib", "--target", target, "-p", crate]
    skip = [word for name in NOT_HERE for word in ("--skip", name)]
    done = runs.run([*command, "--", "--test-threads=1", *skip], 1500, env)
    count = runs.count_cargo(done, f"AddressSanitizer {crate}")
    if count.failed:
        print(done.tail(60))
    return count


def main() -> int:
    options = common.arguments(__doc__.splitlines()[0])
    total = runs.Count()
    target = host()
    runtime = pathlib.Path(output("rustc", "--print", "target-libdir"))
    if list(runtime.glob("librustc*asan*")):
        for crate in CRATES:
            if options.only in crate:
                count = address(crate, target)
                print(f"AddressSanitizer {crate}: {count}", flush=True)
                total += count
        notes = [f"skipped: AddressSanitizer {name} ({why})" for name, why in NOT_HERE.items()]
        total += runs.Count(skipped=len(notes), notes=notes)
    else:
        total += runs.Count(skipped=1, notes=["skipped: AddressSanitizer (no runtime in rustc)"])
    if os.system("cargo miri --version >/dev/null 2>&1") == 0:
        for crate, tests in MIRI.items():
            command = ["cargo", "miri", "test", "--locked", "--lib", "-p", crate, tests]
            env = {"CARGO_TARGET_DIR": str(runs.ROOT / "target" / "miri")}
            total += runs.count_cargo(runs.run(command, 1500, env), f"Miri {crate}")
    else:
        total += runs.Count(skipped=1, notes=["skipped: Miri (cargo miri is not installed)"])
    return total.end()


if __name__ == "__main__":
    sys.exit(main())
