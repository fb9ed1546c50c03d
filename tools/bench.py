"""The figures: Rust benchmarks, then Python's cases on this gevent and on upstream's, in turn,
and the figures of the hub (tools/bench_sections.py).

    bench.py [--rounds N] [--no-rust] [--against PYTHON] [CASE ...]

The two interpreters run alternately and on one processor, so that a drift of the machine's speed
meets both; the best of the rounds counts. Without `--against`, upstream's release is installed into
a virtual environment outside the repository. Only the ratio travels from machine to machine.
"""

from __future__ import annotations

import argparse
import json
import re
import sys

import bench_sections
import demo
import oracle
import runs


def case_names() -> list[str]:
    """The cases of bench_micro.py, read and not imported: this process must not hold a hub."""
    source = (runs.ROOT / "tools" / "bench_micro.py").read_text()
    return re.findall(r"^@case\([\d_]+\)\ndef (\w+)", source, re.M)


def measure(python: str, case: str):
    done = runs.run(demo.pinned(0, [python, "tools/bench_micro.py", case]), 300)
    if done.code != 0:
        return f"{done.ending()} {done.out[-200:]}"
    return json.loads(done.out.splitlines()[-1])[case]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-rust", action="store_true")
    parser.add_argument("--against", default=None)
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    against = options.against or str(oracle.environment())
    failed = 0
    if not options.no_rust and not options.cases:
        done = runs.run(
            ["cargo", "bench", "--locked", "-p", "gevent-benches", "--", "--measurement-time", "2"],
            1800,
        )
        print("\n".join(line for line in done.out.splitlines() if "time:" in line))
        if done.code != 0:
            print(done.tail())
            failed += 1
    print(f"{'ns an operation':<24}{'upstream':>12}{'this':>12}{'this/upstream':>16}")
    for case in options.cases or case_names():
        best: dict[str, object] = {}
        for _ in range(options.rounds):
            for who, python in (("upstream", against), ("this", sys.executable)):
                got = measure(python, case)
                old = best.get(who)
                if isinstance(got, str) or old is None or isinstance(old, str):
                    best[who] = got if old is None else old
                else:
                    best[who] = min(old, got)
        upstream, this = best["upstream"], best["this"]
        if isinstance(upstream, str) or isinstance(this, str):
            failed += isinstance(this, str)
            print(f"{case:<24}{upstream!s:>12}{this!s:>12}")
        else:
            print(f"{case:<24}{upstream:>12.0f}{this:>12.0f}{this / upstream:>16.2f}", flush=True)
    if not options.cases:
        failed += bench_sections.run(against, options.rounds, [])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
