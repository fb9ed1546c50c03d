"""Bounded fuzzing: the parsers by cargo-fuzz, and the order of greenlets against upstream.

    fuzz.py [--seconds S]

Every target of `fuzz/` gets S seconds, where cargo-fuzz is installed; tools/fuzz_order.py gets S
seconds on each loop. Ends with `N passed, N failed, N skipped`, a target or a loop being one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys

import runs


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    total = runs.Count()

    def one(name: str, command: list[str], env: dict[str, str]) -> None:
        print(f"== {name}", flush=True)
        done = runs.run(command, options.seconds * 3 + 900, env)
        print(done.tail(60 if done.code else 3), flush=True)
        total.passed += done.code == 0
        if done.code != 0:
            total.failed += 1
            total.notes.append(f"{name}: {done.ending()}")

    targets = sorted((runs.ROOT / "fuzz" / "fuzz_targets").glob("*.rs"))
    if targets and not shutil.which("cargo-fuzz"):
        total.skipped += len(targets)
        total.notes.append("skipped: cargo-fuzz (not installed; `cargo install cargo-fuzz`)")
        targets = []
    for target in targets:
        limit = f"-max_total_time={options.seconds}"
        # libFuzzer's instrumentation is a nightly flag that the stable compiler has too.
        one(
            f"fuzz/{target.stem}",
            [
                "cargo",
                "fuzz",
                "run",
                "--fuzz-dir=fuzz",
                "--sanitizer=none",
                target.stem,
                "--",
                limit,
            ],
            {"RUSTC_BOOTSTRAP": "1"},
        )
    loops, skipped = runs.loops()
    total.skipped += len(skipped)
    total.notes += skipped
    for loop in loops:
        one(
            f"order [{loop}]",
            [sys.executable, "tools/fuzz_order.py", "--seconds", str(options.seconds)],
            {**os.environ, "GEVENT_LOOP": loop},
        )
    print("\n".join(total.notes))
    print(total)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
