"""WSGI servers side by side under wrk: requests a second, latencies, processor time a request.

    bench_wsgi.py [--rounds N] [--seconds S] [--peer NAME=PYTHON ...] [LOAD ...]
    bench_wsgi.py --idle 10000 | --slow 5000

Ours runs on each loop, upstream's from its virtual environment, and every peer that `--peer`
names (bjoern, fastwsgi, granian) from the interpreter that has it. They run in turn, the server
pinned to one processor and the load to another; the best of the rounds counts. `cpu` is the
server's processor time for a request, which a busy machine changes less than the rate. The floor is
http_floor.c, which answers hello without looking at the request: no server can have wrk do more.

`--idle` opens connections that send one request and then nothing, and weighs what each costs the
server. `--slow` holds so many half-sent requests open and measures what that does to other clients.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import demo
import oracle
import runs

#: name: path, connections, whether path and cookie differ in every request
LOADS = {
    "hello-50": ("/", 50, False),
    "hello-1000": ("/", 1000, False),
    "vary-50": ("/", 50, True),
    "big-50": ("/big", 50, False),
    "stream-50": ("/stream", 50, False),
}

VARY = """\
local n = 0
request = function()
  n = n + 1
  wrk.headers["Cookie"] = "session=" .. n .. "; theme=dark; lang=en"
  wrk.headers["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0)"
  wrk.headers["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
  wrk.headers["Accept-Language"] = "en-US,en;q=0.5"
  wrk.headers["Accept-Encoding"] = "gzip, deflate, br"
  return wrk.format("GET", "/item/" .. n .. "?page=" .. n)
end
"""

SERVE = {
    "gevent": """\
from gevent.pywsgi import WSGIServer
WSGIServer(("127.0.0.1", port), app, log=None, backlog=4096).serve_forever()
""",
    "bjoern": "import bjoern; bjoern.run(app, '127.0.0.1', port)",
    "fastwsgi": "import fastwsgi; fastwsgi.run(wsgi_app=app, host='127.0.0.1', port=port)",
    "granian": """\
import pathlib
from granian import Granian
Granian("wsgi_load:app", address="127.0.0.1", port=port, interface="wsgi", workers=1,
        blocking_threads=1, working_dir=pathlib.Path(sys.path[0]), log_enabled=False,
        backlog=4096).serve()
""",
}

APP = '''\
"""GET / says hello, /big sends 64 KiB, /stream ten chunks; anything else is hello again."""
import sys

BIG = b"x" * 65536


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/big":
        headers = [("Content-Type", "application/octet-stream"), ("Content-Length", "65536")]
        start_response("200 OK", headers)
        return [BIG]
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"chunk %d\\n" % i for i in range(10))
    body = b"Hello, World!\\n"
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


if __name__ == "__main__":
    port = int(sys.argv[1])
'''


def write_script(kind: str, folder: str) -> str:
    script = pathlib.Path(folder, "wsgi_load.py" if kind != "granian" else "wsgi_granian.py")
    body = "".join("    " + line + "\n" for line in SERVE[kind].splitlines())
    script.write_text(APP + body)
    if kind == "granian":
        pathlib.Path(folder, "wsgi_load.py").write_text(APP)
    return str(script)


def build_floor(folder: str) -> list[tuple]:
    """The server that does nothing, if there is a compiler."""
    compiler = shutil.which("cc")
    if not compiler:
        return []
    out = os.path.join(folder, "http_floor")
    source = pathlib.Path(__file__).with_name("http_floor.c")
    subprocess.run([compiler, "-O2", "-o", out, str(source)], check=True)
    return [("floor", "floor", out, {})]


@contextlib.contextmanager
def server(kind: str, python: str, env: dict[str, str], folder: str):
    """A running server: its port and its process id."""
    port = demo.free_port()
    command = [python, str(port)]
    if kind != "floor":
        command = [python, write_script(kind, folder), str(port)]
    child = subprocess.Popen(
        demo.pinned(0, command),
        env={**os.environ, **env},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if child.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{kind} does not come up") from None
                time.sleep(0.05)
        yield port, child.pid
    finally:
        runs.signal_group(child.pid, signal.SIGTERM)
        time.sleep(0.1)
        runs.signal_group(child.pid, signal.SIGKILL)
        child.wait()


def cpu_seconds(pid: int) -> float:
    """Of the process and its children (granian works in one)."""
    total = 0.0
    tick = os.sysconf("SC_CLK_TCK")
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = folder.joinpath("stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        # The fourth field is the parent, the sixth the session: the server leads its own.
        if int(folder.name) == pid or int(fields[3]) == pid:
            total += (int(fields[11]) + int(fields[12])) / tick
    return total


def load(port: int, pid: int, path: str, connections: int, script: str | None, seconds: int):
    """Requests a second, p50, p99, microseconds of processor time a request."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    if script:
        command += ["-s", script]
    before = cpu_seconds(pid)
    done = runs.run(demo.pinned(1, [*command, f"http://127.0.0.1:{port}{path}"]), 60 + seconds)
    used = cpu_seconds(pid) - before
    text = done.out
    found = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if done.code or not found or not rate or "Non-2xx" in text:
        return None
    latency = [re.search(rf"{p}%\s+(\S+)", text)[1] for p in (50, 99)]
    return float(rate[1]), *latency, used / max(int(found[1]), 1) * 1e6


def compare(options, peers) -> int:
    loads = options.loads or list(LOADS)
    best: dict[tuple[str, str], tuple] = {}
    with tempfile.TemporaryDirectory() as folder:
        peers = peers + build_floor(folder)
        script = os.path.join(folder, "vary.lua")
        pathlib.Path(script).write_text(VARY)
        for _ in range(options.rounds):
            for name, kind, python, env in peers:
                with server(kind, python, env, folder) as (port, pid):
                    for which in loads:
                        path, connections, vary = LOADS[which]
                        if kind == "floor" and path != "/":
                            continue
                        got = load(
                            port, pid, path, connections, script if vary else None, options.seconds
                        )
                        old = best.get((which, name))
                        if got and (old is None or got[0] > old[0]):
                            best[which, name] = got
    for which in loads:
        head = ("requests/s", "p50", "p99", "cpu us", "x best other")
        print(f"{which:<16}" + "".join(f"{title:>13}" for title in head))
        for name, *_ in peers:
            got = best.get((which, name))
            if name == "floor" and LOADS[which][0] != "/":
                continue
            if got is None:
                print(f"  {name:<14}{'failed':>12}")
                continue
            others = [
                best[which, other][0]
                for other, kind, python, _ in peers
                if (which, other) in best and (kind != "gevent" or python != sys.executable)
                and other not in (name, "floor")
            ]
            ratio = got[0] / max(others) if others else 0
            rate, p50, p99, cpu = got
            print(f"  {name:<14}{rate:>13.0f}{p50:>13}{p99:>13}{cpu:>13.2f}{ratio:>13.2f}")
    return 0


def resident(pid: int) -> int:
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024


def open_many(port: int, count: int, data: bytes, answer: bool):
    """Connections that have sent `data`, and have had an answer if so asked."""
    opened = []
    for i in range(count):
        sock = socket.socket()
        # Addresses of the loopback network in turn: one has not ports enough.
        sock.bind((f"127.0.0.{2 + i // 20000}", 0))
        sock.connect(("127.0.0.1", port))
        sock.sendall(data)
        opened.append(sock)
        if answer:
            sock.recv(4096)
    return opened


def idle(options, peers) -> int:
    get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    with tempfile.TemporaryDirectory() as folder:
        for name, kind, python, env in peers:
            with server(kind, python, env, folder) as (port, pid):
                for sock in open_many(port, 200, get, True):
                    sock.close()
                time.sleep(0.3)
                before = resident(pid)
                opened = open_many(port, options.idle, get, True)
                time.sleep(0.3)
                each = (resident(pid) - before) / len(opened)
                print(f"{name:<14} {each:>8.0f} bytes of resident memory an idle connection")
                for sock in opened:
                    sock.close()
    return 0


def slow(options, peers) -> int:
    with tempfile.TemporaryDirectory() as folder:
        for name, kind, python, env in peers:
            alone = beside = 0.0
            with server(kind, python, env, folder) as (port, pid):
                for _ in range(5):
                    got = load(port, pid, "/", 50, None, options.seconds)
                    alone = max(alone, got[0] if got else 0)
                    half = b"GET / HTTP/1.1\r\nHost: a\r\nX-"
                    opened = open_many(port, options.slow, half, False)
                    got = load(port, pid, "/", 50, None, options.seconds)
                    beside = max(beside, got[0] if got else 0)
                    for sock in opened:
                        sock.close()
                    time.sleep(0.3)
            if not alone:
                print(f"{name:<14} failed")
                continue
            print(f"{name:<14} alone {alone:.0f}, beside {options.slow} slow {beside:.0f}: "
                  f"{beside / alone:.2f}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--no-upstream", action="store_true")
    parser.add_argument("--idle", type=int, default=0)
    parser.add_argument("--slow", type=int, default=0)
    parser.add_argument("loads", nargs="*", choices=[*LOADS, []])
    options = parser.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    loops, _ = runs.loops()
    peers = [(f"ours-{loop}", "gevent", sys.executable, {"GEVENT_LOOP": loop}) for loop in loops]
    if not options.no_upstream:
        libev = {"GEVENT_LOOP": "libev-cext"}
        peers.append(("upstream", "gevent", str(oracle.environment()), libev))
    for peer in options.peer:
        name, _, python = peer.partition("=")
        peers.append((name, name, python, {}))
    if options.idle:
        return idle(options, peers)
    if options.slow:
        return slow(options, peers)
    return compare(options, peers)


if __name__ == "__main__":
    sys.exit(main())
