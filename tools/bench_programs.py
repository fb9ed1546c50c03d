"""Real programs on this gevent and on upstream's, in turn: how many operations a second.

    bench_programs.py [--rounds N] [--seconds S] [--against PYTHON] [--idle|--busy] [CASE ...]

Each measurement is a process of its own, pinned to one processor, with the servers on another. The
best of the rounds counts; only the ratios travel from machine to machine. The second ratio is by
the processor time that the measured process took. Every case is also measured beside a native
thread of the same process that computes in Python. Without `--against`, upstream's release and the
programs are installed into a virtual environment outside the repository.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import math
import os
import pathlib
import re
import sys
import tempfile

import demo
import oracle
import programs
import runs
import servers

#: At least this many times upstream's rate; 1 where nothing else is said.
GOALS = {"redis_get": 1.3, "tls_echo": 1.3, "connections": 1.3}
LOCUST = {"locust_requests": "Plain", "locust_geventhttpclient": "Fast"}

NGINX = """
daemon off; pid {folder}/pid; error_log stderr crit; worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off; keepalive_requests 1000000;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 "hello"; }} }}
}}
"""


def upstream() -> str:
    """The interpreter of an environment with upstream's gevent and the programs."""
    base = oracle.environment().parent.parent
    folder = base.with_name(base.name.replace("oracle", "programs"))
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        wanted = [f"gevent=={oracle.VERSION}", "-r", programs.REQUIREMENTS]
        for command in (
            [sys.executable, "-m", "venv", "--clear", folder],
            [python, "-m", "pip", "install", "--quiet", *wanted],
        ):
            done = runs.run(command, 900)
            if done.code != 0:
                raise SystemExit(f"no environment with upstream gevent:\n{done.tail()}")
        (folder / ".ready").touch()
    return str(python)


@contextlib.contextmanager
def nginx():
    """A web server that answers at once, and is never the slower side."""
    port = servers.free_port()
    with tempfile.TemporaryDirectory() as path:
        folder = pathlib.Path(path)
        (folder / "conf").write_text(NGINX.format(folder=folder, port=port))
        command = [servers.find("nginx"), "-p", path, "-c", folder / "conf"]
        with servers.running(demo.pinned(1, command), port, folder / "log"):
            yield {"PROGRAMS_HTTP": f"http://127.0.0.1:{port}"}


@contextlib.contextmanager
def all_servers():
    with contextlib.ExitStack() as stack:
        env = {}
        # Whatever they start stays on the second processor.
        everywhere = os.sched_getaffinity(0)
        if len(everywhere) > 1:
            os.sched_setaffinity(0, {sorted(everywhere)[1]})
        for server in (servers.redis, servers.postgres, nginx):
            try:
                env |= stack.enter_context(server())
            except servers.Missing as missing:
                print(f"skipped: {missing}")
        os.sched_setaffinity(0, everywhere)
        yield env


NEEDS = {
    "redis_get": "PROGRAMS_REDIS",
    "psycopg2_query": "PROGRAMS_POSTGRES",
    "requests_get": "PROGRAMS_HTTP",
    "geventhttpclient_get": "PROGRAMS_HTTP",
    "locust_requests": "PROGRAMS_HTTP",
    "locust_geventhttpclient": "PROGRAMS_HTTP",
}


def case_names() -> list[str]:
    source = (runs.ROOT / "tools" / "bench_programs_work.py").read_text()
    return re.findall(r"^@case\ndef (\w+)", source, re.M) + list(LOCUST)


def locust(python: str, case: str, seconds: float, env: dict[str, str]):
    """Locust's own count of requests a second, with twenty users who never pause."""
    with tempfile.TemporaryDirectory() as path:
        command = [python, "-m", "locust", "-f", programs.FOLDER / "locust_file.py", LOCUST[case]]
        command += ["--headless", "-u", "20", "-r", "100", "-t", f"{max(int(seconds), 1) + 1}s"]
        command += ["-H", env["PROGRAMS_HTTP"], "--csv", f"{path}/out", "--only-summary"]
        done = runs.run(demo.pinned(0, [str(word) for word in command]), seconds + 60, env, path)
        if done.code != 0:
            return done.ending() + done.out[-300:]
        rows = csv.DictReader(pathlib.Path(path, "out_stats.csv").read_text().splitlines())
        rate = float(next(row for row in rows if row["Name"] == "Aggregated")["Requests/s"])
        return rate, math.nan


def measure(python: str, case: str, seconds: float, busy: bool, env: dict[str, str]):
    if case in LOCUST:
        return locust(python, case, seconds, env)
    command = [python, "tools/bench_programs_work.py", case, str(seconds), *["busy"] * busy]
    done = runs.run(demo.pinned(0, command), seconds + 60, env)
    if done.code != 0:
        return done.ending() + done.out[-300:]
    return tuple(map(float, done.out.split()[-2:]))


def best_of(values):
    """``(a second, a second of processor time)``, each the best; or what went wrong."""
    numbers = [value for value in values if isinstance(value, tuple)]
    return tuple(map(max, zip(*numbers, strict=True))) if numbers else values[0]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--against", default=None)
    parser.add_argument("--idle", action="store_true", help="not beside a busy thread")
    parser.add_argument("--busy", action="store_true", help="only beside a busy thread")
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    against = options.against or upstream()
    this = str(programs.environment())
    failed = 0
    print(f"{'a second':<36}{'upstream':>10}{'this':>10}{'ratio':>8}{'by CPU':>8}{'goal':>6}")
    with all_servers() as env:
        for case in options.cases or case_names():
            if (need := NEEDS.get(case)) and need not in env:
                print(f"skipped: {case}")
                continue
            for busy in (False, True):
                if (busy and (options.idle or case in LOCUST)) or (not busy and options.busy):
                    continue
                got = {against: [], this: []}
                for _ in range(options.rounds):
                    for python, rates in got.items():
                        rates.append(measure(python, case, options.seconds, busy, env))
                theirs, ours = best_of(got[against]), best_of(got[this])
                name = case + (", a busy thread" if busy else "")
                if isinstance(theirs, str) or isinstance(ours, str):
                    failed += isinstance(ours, str)
                    print(f"{name:<36}{theirs!s:>10}{ours!s:>10}", flush=True)
                    continue
                goal = GOALS.get(case, 1.0)
                ratio, by_time = (mine / other for mine, other in zip(ours, theirs, strict=True))
                processor = (
                    f"{by_time:>8.2f}" if not busy and math.isfinite(by_time) else f"{'-':>8}"
                )
                row = (
                    f"{name:<36}{theirs[0]:>10.0f}{ours[0]:>10.0f}{ratio:>8.2f}{processor}{goal:>6}"
                )
                print(row + ("" if ratio >= goal else "  below"), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
