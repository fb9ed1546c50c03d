"""What a message of the echo server costs: processor time and system calls, on each loop, beside
upstream's gevent and a server in C that does nothing else.

    bench_echo.py [--rounds N] [--seconds S] [--against PYTHON]

The server has one processor, the load the other. The processor time is what the kernel counted
for the server's threads, which a busy machine changes less than the rate; the best of the rounds
counts. The system calls are strace's, counted in a run of their own; where perf(1) is installed,
the shares of the kernel and of each library are its.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import demo
import oracle
import runs

LOADS = [(10, 64), (100, 1024), (1000, 1024)]


def processor_ns(pid: int) -> int:
    """Nanoseconds that the threads of a process have run."""
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def measure(tool: str, port: int, pid: int, connections: int, size: int, seconds: float):
    """Messages a second and microseconds of the server's a message."""
    before = processor_ns(pid)
    rate, wrong = demo.load(tool, port, "echo", connections, size, seconds)
    if wrong:
        raise RuntimeError(wrong)
    return rate, (processor_ns(pid) - before) / 1000 / (rate * seconds)


def system_calls(tool: str, port: int, pid: int, connections: int, size: int) -> str:
    """System calls a message, those of at least one in a hundred."""
    with tempfile.NamedTemporaryFile("r") as counts:
        command = ["strace", "-f", "-c", "-U", "calls,name", "-o", counts.name, "-p", str(pid)]
        tracer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.5)
        seconds = 2.0
        rate, _ = demo.load(tool, port, "echo", connections, size, seconds)
        tracer.terminate()
        tracer.wait(20)
        rows = re.findall(r"^\s*(\d+) (\w+)$", counts.read(), re.M)
    each = [(int(n) / (rate * seconds), name) for n, name in rows if name != "total"]
    return ", ".join(f"{n:.2f} {name}" for n, name in sorted(each, reverse=True) if n >= 0.01)


def profile(tool: str, port: int, pid: int, connections: int, size: int) -> str:
    """Where the time goes: the share of the kernel and of each library."""
    with tempfile.TemporaryDirectory() as work:
        data = f"{work}/perf.data"
        command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "2000"]
        recorder = subprocess.Popen(
            [*command, "-p", str(pid), "-o", data],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.5)
        demo.load(tool, port, "echo", connections, size, 3)
        recorder.terminate()
        recorder.wait(20)
        report = ["perf", "report", "-i", data, "--no-children", "--stdio", "-q", "--sort", "dso"]
        out = runs.run(report, 60).out
    shares = re.findall(r"^\s*([\d.]+)%\s+(\S+)", out, re.M)
    return ", ".join(f"{name.strip('[]')} {share} %" for share, name in shares if float(share) >= 1)


def servers(against: str, limit: str):
    """Name, command before the port, variables."""
    echo = str(runs.ROOT / "examples" / "echo.py")
    return [
        ("C, epoll", [limit], {}),
        ("epoll", [sys.executable, echo], {"GEVENT_LOOP": "epoll"}),
        ("uring", [sys.executable, echo], {"GEVENT_LOOP": "uring"}),
        ("upstream", [against, echo], {"GEVENT_LOOP": None, "PYTHONPATH": None}),
    ]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--against", default=None)
    options = parser.parse_args()
    against = options.against or str(oracle.environment())
    with tempfile.TemporaryDirectory() as work:
        tool, limit = demo.compiled("load", work), demo.compiled("echo_limit", work)
        rivals = servers(against, limit)
        for connections, size in LOADS:
            best: dict[str, tuple[float, float]] = {}
            for _ in range(options.rounds):
                for name, command, env in rivals:
                    with demo.running(command, env) as (port, pid):
                        got = measure(tool, port, pid, connections, size, options.seconds)
                    rate, cost = best.get(name, (0.0, float("inf")))
                    best[name] = (max(rate, got[0]), min(cost, got[1]))
            print(f"{connections} connections, {size} bytes", flush=True)
            for name, command, env in rivals:
                rate, cost = best[name]
                print(f"  {name:<10}{rate:>10,.0f} a second{cost:>8.2f} us", flush=True)
                for tracer, look in (("strace", system_calls), ("perf", profile)):
                    if shutil.which(tracer):
                        with demo.running(command, env) as (port, pid):
                            print(f"    {look(tool, port, pid, connections, size)}", flush=True)
    missing = [t for t in ("strace", "perf") if not shutil.which(t)]
    print(f"not here, so not shown: {', '.join(missing)}" if missing else "all shown")
    return 0


if __name__ == "__main__":
    sys.exit(main())
