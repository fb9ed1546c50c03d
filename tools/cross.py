"""Type-checks the crates below the binding for systems that have kqueue: macOS, FreeBSD, NetBSD.

    cross.py [target ...]

`cargo clippy` needs the standard library of a target and neither its linker nor its headers. A
library that this toolchain lacks is added by rustup where that can be; else the target is skipped
by name. Ends with `N passed, N failed, N skipped`.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import stat
import subprocess
import sys

import runs

TARGETS = [
    "x86_64-apple-darwin",
    "aarch64-apple-darwin",
    "x86_64-unknown-freebsd",
    "x86_64-unknown-netbsd",
]
CRATES = ["hub-core", "loop-kqueue", "sync", "net", "wsgi"]
LIMIT = 900
# Build scripts of third-party crates compile C, which a check never links: an empty object will do.
COMPILER = """#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
        -o) shift; : >"$1" ;;
        -o*) : >"${1#-o}" ;;
    esac
    shift
done
"""
ARCHIVER = """#!/bin/sh
shift
: >"$1"
"""


def has_library(target: str) -> bool:
    words = ["rustc", "--print", "target-libdir", "--target", target]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode == 0 and pathlib.Path(done.stdout.strip()).is_dir()


def tool(name: str, text: str) -> str:
    path = runs.ROOT / "target" / "cross" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def check(target: str) -> runs.Count:
    if not has_library(target) and shutil.which("rustup"):
        runs.run(["rustup", "target", "add", target], LIMIT)
    if not has_library(target):
        reason = f"skipped: {target} (no standard library for it, and rustup cannot add it)"
        return runs.Count(skipped=1, notes=[reason])
    name = target.replace("-", "_")
    env = {
        "CARGO_TARGET_DIR": str(runs.ROOT / "target" / "cross"),
        f"CC_{name}": tool("cc", COMPILER),
        f"AR_{name}": tool("ar", ARCHIVER),
    }
    words = ["cargo", "clippy", "--locked", "--quiet", "--target", target]
    for crate in CRATES:
        words += ["-p", f"gevent-{crate}"]
    done = runs.run([*words, "--", "-D", "warnings"], LIMIT, env)
    print(f"{'ok' if done.code == 0 else 'FAILED'} {target} ({done.seconds:.0f} s)", flush=True)
    if done.code == 0:
        return runs.Count(passed=1)
    print(done.tail(80))
    return runs.Count(failed=1, notes=[f"{target}: {done.ending()}"])


def main() -> int:
    os.chdir(runs.ROOT)
    total = runs.Count()
    for target in sys.argv[1:] or TARGETS:
        total += check(target)
    for note in total.notes:
        print(note)
    print(total)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
