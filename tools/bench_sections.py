"""The figures of tools/bench_hub.py on two interpreters, in turn, the best of the rounds: a table.

    bench_sections.py [--rounds N] [--against PYTHON] [NAME ...]

A name is a function of bench_hub.py. Less is better, but for the round trips of the echo server and
the share of the greenlet that got the fewest turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile

import demo
import oracle
import runs

SCRIPT = str(runs.ROOT / "tools" / "bench_hub.py")
#: By function: the numbers that it is asked for.
SECTIONS = {
    "cold_import": [0],
    "equal_shares": [1000],
    "idle": [10],
    "parked_greenlets": [1_000, 10_000, 100_000, 200_000],
    "pending_timers": [1_000, 10_000, 100_000, 200_000, 1_000_000],
}
SERVERS = ["echo_server", "echo_server_beside_a_thread"]
ECHO = "echo round trips a second"
BEST_IS_MOST = {ECHO, "fewest turns/most"}


def ask(python: str, name: str, number: int):
    command = demo.pinned(0, [python, SCRIPT, name, str(number)])
    done = runs.run(command, 300, {"PYTHONDONTWRITEBYTECODE": ""})
    if done.code != 0:
        return f"{done.ending()} {done.out[-300:]}"
    return json.loads(done.out.splitlines()[-1])


def serve(python: str, name: str, tool: str):
    # Not pinned: the rival is to have a processor of its own, and only the GIL to fight for.
    with demo.server(python, SCRIPT, {}, before=[name], pin=False) as port:
        rate, wrong = demo.load(tool, port, "echo", 10, 64, 2)
    return wrong or {ECHO: rate}


def better(name: str, old: float, new: float) -> float:
    return max(old, new) if name in BEST_IS_MOST else min(old, new)


def show(title: str, best: dict[str, dict[str, float] | str]) -> bool:
    """Prints the rows of one function; false if this gevent failed."""
    upstream, this = best["upstream"], best["this"]
    if isinstance(this, str) or isinstance(upstream, str):
        print(f"{title}: upstream {upstream}, this {this}", flush=True)
        return not isinstance(this, str)
    for name, value in this.items():
        other = upstream[name]
        ratio = f"{value / other:>12.2f}" if other else f"{'-':>12}"
        print(f"{f'{title}: {name}':<62}{other:>12.4g}{value:>12.4g}{ratio}", flush=True)
    return True


def run(against: str, rounds: int, names: list[str]) -> int:
    """Measures and prints; how many failed."""
    failed = 0
    print(f"{'':<62}{'upstream':>12}{'this':>12}{'ratio':>12}")
    with tempfile.TemporaryDirectory() as work:
        tool = demo.compiled("load", work)
        asked = [(n, i) for n in SECTIONS for i in SECTIONS[n]] + [(n, 0) for n in SERVERS]
        for name, number in asked:
            if names and name not in names:
                continue
            best: dict[str, dict[str, float] | str] = {}
            for _ in range(rounds):
                for who, python in (("upstream", against), ("this", sys.executable)):
                    serves = name in SERVERS
                    got = serve(python, name, tool) if serves else ask(python, name, number)
                    old = best.get(who)
                    if isinstance(got, str) or old is None or isinstance(old, str):
                        best[who] = got if old is None else old
                    else:
                        best[who] = {k: better(k, old[k], v) for k, v in got.items()}
            title = f"{name} {number}" if number else name
            failed += not show(title.replace("_", " "), best)
    return failed


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", default=None)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    against = options.against or str(oracle.environment())
    return 1 if run(against, options.rounds, options.names) else 0


if __name__ == "__main__":
    sys.exit(main())
