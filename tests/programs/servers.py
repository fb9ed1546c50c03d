"""The real servers that the programs talk to: started on a free loopback port, stopped at the end.

Each is a context manager that gives the variables by which the tests find it, or raises
:exc:`Missing`. Knows nothing of gevent: the runner starts them before any test.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time


class Missing(Exception):
    """The server is not installed, or cannot be run here."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def find(name: str, *folders: str) -> str:
    for pattern in folders:
        for path in sorted(glob.glob(os.path.join(pattern, name)), reverse=True):
            return path
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise Missing(f"{name} is not installed")
    return path


def user_for(name: str) -> dict:
    """Arguments of Popen that drop root's rights to those of *name*, as some servers insist."""
    if os.getuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise Missing(f"root, and no user {name}") from None
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@contextlib.contextmanager
def folder(user: dict):
    """A new folder that belongs to the server's user."""
    with tempfile.TemporaryDirectory(prefix="gevent-programs-", ignore_cleanup_errors=True) as path:
        if user:
            os.chown(path, user["user"], user["group"])
        yield pathlib.Path(path)


@contextlib.contextmanager
def running(command: list[str], port: int, log: pathlib.Path, stop=signal.SIGTERM, **kwargs):
    """Run *command* until the end of the block; begin when it takes connections."""
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            **kwargs,
        )
    try:
        for _ in range(600):
            if process.poll() is not None:
                text = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{command[0]} ended with {process.returncode}:\n{text}")
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield process
    finally:
        process.send_signal(stop)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def redis():
    server, port = find("redis-server"), free_port()
    with folder({}) as path:
        options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": path}
        words = [word for key, value in options.items() for word in (f"--{key}", value)]
        with running([server, *words], port, path / "log"):
            yield {"PROGRAMS_REDIS": f"redis://127.0.0.1:{port}/0"}


@contextlib.contextmanager
def postgres():
    where = "/usr/lib/postgresql/*/bin"
    initdb, server = find("initdb", where), find("postgres", where)
    user, port = user_for("postgres"), free_port()
    with folder(user) as path:
        data = path / "data"
        subprocess.run(
            [initdb, "-D", data, "-U", "gevent", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=120,
            cwd=path,
            **user,
        )
        options = ["max_connections=150", "fsync=off", f"unix_socket_directories={path}"]
        words = [word for option in options for word in ("-c", option)]
        command = [server, "-D", data, "-h", "127.0.0.1", "-p", port, *words]
        # SIGINT is its fast shutdown: it ends the connections that are left.
        with running(command, port, path / "log", signal.SIGINT, cwd=path, **user):
            dsn = f"host=127.0.0.1 port={port} user=gevent dbname=postgres"
            yield {"PROGRAMS_POSTGRES": dsn, "PROGRAMS_POSTGRES_PORT": str(port)}


@contextlib.contextmanager
def mariadb():
    install, server = find("mariadb-install-db"), find("mariadbd")
    user, port = user_for("mysql"), free_port()
    with folder(user) as path:
        data = path / "data"
        subprocess.run(
            [
                install,
                "--no-defaults",
                f"--datadir={data}",
                "--auth-root-authentication-method=normal",
            ]
            + ["--skip-test-db"],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
            cwd=path,
            **user,
        )
        command = [server, "--no-defaults", f"--datadir={data}", f"--port={port}"]
        command += ["--bind-address=127.0.0.1", f"--socket={path}/socket", "--max-connections=150"]
        command += ["--innodb-flush-log-at-trx-commit=0", f"--pid-file={path}/pid"]
        with running(command, port, path / "log", cwd=path, **user):
            yield {"PROGRAMS_MARIADB": str(port)}


#: Started once for all tests, which leave nothing behind in them.
SHARED = {"postgres": postgres, "mariadbd": mariadb}
#: Started for each file of tests and each loop: some take its queues, and hang up on everybody.
OWN = {"redis-server": redis}
