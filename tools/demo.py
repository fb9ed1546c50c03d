"""The example servers on every loop: checked, loaded, and their rates side by side.

    demo.py [--seconds S] [--loops NAME,...] [--against NAME=PYTHON ...]

`examples/hello.py` (a request a connection), `examples/wsgi.py` (gevent.pywsgi, connections kept
alive) and `examples/echo.py` start on free loopback ports; the first two answer curl first.
`--loops epoll,uring,kqueue` asks for these and no others; kqueue is emulated on Linux, and so takes
part only if it is asked for. wrk loads hello where it is installed, and tools/load.c the rest. The
servers are pinned to one processor and the load to another where there are two. `--against` adds
an interpreter with another gevent in it. Everything that was started is stopped by its own id.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import runs

CONNECTIONS = 50
LOADS = {
    "hello, a connection each": ("hello.py", "http", CONNECTIONS, 0),
    "pywsgi, kept alive": ("wsgi.py", "http", CONNECTIONS, 0),
    "echo, 64 bytes": ("echo.py", "echo", CONNECTIONS, 64),
    "echo, 16 KiB": ("echo.py", "echo", CONNECTIONS, 16384),
}


def pinned(processor: int, command: list[str]) -> list[str]:
    if (os.cpu_count() or 1) > 1 and shutil.which("taskset"):
        return ["taskset", "-c", str(processor), *command]
    return command


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def compiled(name: str, folder: str) -> str:
    """The program of tools/NAME.c, built in `folder`."""
    program = os.path.join(folder, name)
    source = str(runs.ROOT / "tools" / f"{name}.c")
    subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", program, source], check=True)
    return program


@contextlib.contextmanager
def server(
    python: str, script: str, env: dict[str, str | None], *, before=(), pin: bool = True
):
    """A running example; yields its port. Its output is shown if it does not come up.

    `script` is in `examples`, or a whole path; `before` are its arguments before the port.
    """
    command = [python, str(runs.ROOT / "examples" / script), *before]
    with running(command, env, pin=pin) as (port, _pid):
        yield port


@contextlib.contextmanager
def running(command: list[str], env: dict[str, str | None], *, pin: bool = True):
    """A server that takes its port as its last argument; yields that and its process."""
    port = free_port()
    script = command[-1]
    command = [*command, str(port)]
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            pinned(0, command) if pin else command,
            env={k: v for k, v in {**os.environ, **env}.items() if v is not None},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            for _ in range(100):
                if child.poll() is not None:
                    break
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            else:
                raise RuntimeError(f"{script} did not listen")
            if child.poll() is not None:
                output.seek(0)
                text = output.read().decode("utf-8", "replace")
                last = "\n".join(text.splitlines()[-12:])
                raise RuntimeError(f"{script} ended with {child.returncode}:\n{last}")
            yield port, child.pid
        finally:
            runs.signal_group(child.pid, signal.SIGTERM)
            try:
                child.wait(3)
            except subprocess.TimeoutExpired:
                pass
            runs.signal_group(child.pid, signal.SIGKILL)
            child.wait()


def check_hello(script: str, port: int) -> None:
    url = f"http://127.0.0.1:{port}/"
    if shutil.which("curl"):
        done = runs.run(["curl", "-sS", "--max-time", "5", url], 10)
        answer = done.out
    else:
        with urllib.request.urlopen(url, timeout=5) as reply:
            answer = reply.read().decode()
    if answer.strip() != "Hello World":
        raise RuntimeError(f"{script} answered {answer!r}")


def load(tool: str, port: int, kind: str, connections: int, size: int, seconds: float):
    """Requests a second, and what went wrong in words."""
    if kind == "http" and shutil.which("wrk"):
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", f"http://127.0.0.1:{port}/"]
        out = runs.run(pinned(1, command), seconds + 20).out
        rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
        # Its answer ends where the connection does; wrk counts each such end as a read error.
        wrong = re.search(r"Socket errors: (?!connect 0, read \d+, write 0, timeout 0).*", out)
        wrong = wrong or re.search(r"Non-2xx.*", out)
        return float(rate[1]) if rate else 0.0, wrong[0] if wrong else ""
    command = [tool, str(port), kind, str(connections), str(size), f"{seconds:g}"]
    out = runs.run(pinned(1, command), seconds + 20).out
    rate = re.search(r"(\d+) per second, (\d+) errors", out)
    if not rate:
        return 0.0, out.strip() or "no answer"
    return float(rate[1]), "" if rate[2] == "0" else f"{rate[2]} errors"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--loops", type=lambda text: text.split(","), metavar="NAME,...")
    parser.add_argument("--against", action="append", default=[], metavar="NAME=PYTHON")
    options = parser.parse_args()
    loops, skipped = (options.loops, []) if options.loops else runs.loops()
    who = [(loop, sys.executable, {"GEVENT_LOOP": loop}) for loop in loops]
    for text in options.against:
        name, python = text.split("=", 1)
        who.append((name, python, {"GEVENT_LOOP": None}))

    failed = 0
    with tempfile.TemporaryDirectory() as work:
        tool = compiled("load", work)
        rates: dict[tuple[str, str], str] = {}
        for title, (script, kind, connections, size) in LOADS.items():
            for name, python, env in who:
                try:
                    with server(python, script, env) as port:
                        if kind == "http":
                            check_hello(script, port)
                        rate, wrong = load(tool, port, kind, connections, size, options.seconds)
                        if kind == "http":
                            check_hello(script, port)
                except RuntimeError as error:
                    rate, wrong = 0.0, str(error)
                if wrong or not rate:
                    print(f"{title} [{name}]: {wrong or 'no request went through'}")
                    failed += 1
                rates[title, name] = f"{rate:,.0f}"
                print(f"  {title:<26} {name:<12} {rate:>10,.0f} per second", flush=True)

    print(f"\nrequests per second, {CONNECTIONS} connections, {options.seconds:g} s each")
    print(" " * 28 + "".join(f"{name:>12}" for name, _, _ in who))
    for title in LOADS:
        print(f"  {title:<26}" + "".join(f"{rates[title, name]:>12}" for name, _, _ in who))
    for line in skipped:
        print(line)
    tool = "wrk" if shutil.which("wrk") else "tools/load.c (no wrk here)"
    print("load of hello and pywsgi: " + tool)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
