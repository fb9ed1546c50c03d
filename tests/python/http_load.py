"""Servers as processes, and clients that notice every request that gets no whole answer."""

import contextlib
import os
import pathlib
import re
import signal
import socket as blocking_socket
import subprocess
import sys
import tempfile
import time

import gevent
from http_client import Client

SCALE = float(os.environ.get("TIME_SCALE") or 1)

#: An application whose answers say which process and which version of the code gave them.
APPLICATION = """\
import os, gevent
VERSION = {version}

def app(environ, start_response):
    gevent.sleep(0.003)
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/slow":
        open("slow", "w").close()
        gevent.sleep(0.7)
    return [b"%d %d %d" % (os.getpid(), VERSION, len(body))]

def create(version=VERSION):
    global VERSION
    VERSION = version
    return app
"""


class Load:
    """Clients that ask without a pause: some keep their connections, some make new ones."""

    def __init__(self, address, clients=8):
        self.address = address
        self.running = True
        self.answered = 0
        self.failures = []
        self.bodies = set()
        self.round = 0
        self.clients = [gevent.spawn(self._run, keep=bool(n % 2)) for n in range(clients)]

    def _run(self, keep):
        client = self._ask_on(keep)
        if client is not None:
            client.close()

    def _ask_on(self, keep):
        client = None
        while self.running:
            try:
                if client is None:
                    client = Client(self.address)
                fields = [] if keep else ["Connection: close"]
                head = ["POST / HTTP/1.1", "Host: a", "Content-Length: 3", *fields]
                asked = self.round
                answer = client.ask(head, b"abc")
                assert answer.status == 200, answer.status
                assert answer.body.endswith(b" 3"), answer.body
                if asked == self.round:
                    self.bodies.add(answer.body)
                self.answered += 1
                if not keep or answer.fields.get("connection") == "close":
                    client.close()
                    client = None
            except Exception as ex:
                self.failures.append(repr(ex))
                if client is not None:
                    client.close()
                client = None
                gevent.sleep(0.05)
        return client

    def forget(self):
        """Begin anew with `bodies`: of the answers to what is asked from now on."""
        self.round += 1
        self.bodies.clear()

    @property
    def versions(self):
        return {int(body.split()[1]) for body in self.bodies}

    @property
    def processes(self):
        return {int(body.split()[0]) for body in self.bodies}

    def wait_for(self, condition, seconds=30):
        """Let the clients work until *condition* holds."""
        deadline = time.monotonic() + seconds * SCALE
        while not condition():
            assert time.monotonic() < deadline, (self.answered, self.failures[:3], self.bodies)
            gevent.sleep(0.02)

    def more(self, count=200):
        """Let the clients get so many further answers."""
        goal = self.answered + count
        self.wait_for(lambda: self.answered >= goal)

    def stop(self):
        self.running = False
        gevent.joinall(self.clients, timeout=30 * SCALE, raise_error=True)


class Process:
    """A server as a child process; `output` is what it printed."""

    def __init__(self, arguments, folder, python=sys.executable, **env):
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")
        self.child = subprocess.Popen(
            [python, *map(str, arguments)],
            cwd=folder,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **env},
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    @property
    def output(self):
        return pathlib.Path(self.log.name).read_text()

    def wait_for(self, pattern, seconds=30):
        """Wait until the output matches."""
        deadline = time.monotonic() + seconds * SCALE
        while not (found := re.search(pattern, self.output)):
            assert self.child.poll() is None, (self.child.returncode, self.output)
            assert time.monotonic() < deadline, self.output
            gevent.sleep(0.02)
        return found

    def wait_for_port(self, address, seconds=30):
        deadline = time.monotonic() + seconds * SCALE
        while True:
            try:
                Client(address).close()
                return
            except OSError:
                assert self.child.poll() is None, (self.child.returncode, self.output)
                assert time.monotonic() < deadline, self.output
                gevent.sleep(0.05)

    def wait_for_file(self, path, seconds=30):
        self.wait_until(path.exists, seconds)

    def wait_until(self, condition, seconds=30):
        deadline = time.monotonic() + seconds * SCALE
        while not condition():
            assert self.child.poll() is None, (self.child.returncode, self.output)
            assert time.monotonic() < deadline, self.output
            gevent.sleep(0.02)

    def send(self, number):
        os.kill(self.child.pid, number)

    def end(self, seconds=30):
        """Wait until it ended; gives the exit code."""
        deadline = time.monotonic() + seconds * SCALE
        while self.child.poll() is None:
            assert time.monotonic() < deadline, self.output
            gevent.sleep(0.02)
        return self.child.returncode

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Its workers, too: they are of its process group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        self.log.close()


def write_application(folder, version=1):
    folder.joinpath("appmodule.py").write_text(APPLICATION.format(version=version))


def free_port():
    with blocking_socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
