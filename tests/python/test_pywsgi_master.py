"""The first process of `python -m gevent.pywsgi`: signals at any moment, sockets without a worker.

What a worker does at some point is held up by files, so that a signal meets it exactly there.
"""

import os
import signal
import time

import gevent
import pytest
from http_client import Client
from http_load import SCALE, Process

pytestmark = pytest.mark.ours

APPLICATION = """\
import os, time
HERE = os.path.dirname(os.path.abspath(__file__))
VERSION = 1

def hold(name):
    "Go on when the file NAME.hold is gone; NAME.held tells that we are here."
    if not os.path.exists(os.path.join(HERE, name + ".hold")):
        return
    with open(os.path.join(HERE, name + ".new"), "w") as file:
        file.write(str(os.getpid()))
    os.rename(os.path.join(HERE, name + ".new"), os.path.join(HERE, name + ".held"))
    while os.path.exists(os.path.join(HERE, name + ".hold")):
        time.sleep(0.005)

hold("import")

def app(environ, start_response):
    if environ["PATH_INFO"] == "/hold":
        hold("request")
    start_response("200 OK", [])
    return [b"%d %d" % (os.getpid(), VERSION)]
"""

#: Holds up a child where hooks of a fork run in it, before the command's own code does.
COMMAND = """\
import os, sys
sys.path.insert(0, os.getcwd())
def hook():
    import time
    if os.path.exists("fork.hold"):
        with open("fork.new", "w") as file:
            file.write(str(os.getpid()))
        os.rename("fork.new", "fork.held")
        while os.path.exists("fork.hold"):
            time.sleep(0.005)
os.register_at_fork(after_in_child=hook)
from gevent.pywsgi._command import main
sys.exit(main(sys.argv[1:]))
"""


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds * SCALE
    while not condition():
        assert time.monotonic() < deadline
        gevent.sleep(0.01)


class Service(Process):
    def __init__(self, folder, *arguments):
        self.folder = folder
        folder.joinpath("command.py").write_text(COMMAND)
        if not folder.joinpath("appmodule.py").exists():
            folder.joinpath("appmodule.py").write_text(APPLICATION)
        arguments = ["command.py", "-b", "127.0.0.1:0", *arguments, "appmodule:app"]
        super().__init__(arguments, folder)
        found = self.wait_for(r"http://127\.0\.0\.1:(\d+)")
        self.address = ("127.0.0.1", int(found[1]))

    def hold(self, name):
        self.folder.joinpath(name + ".hold").touch()

    def held(self, name):
        """The process that is held up there."""
        file = self.folder.joinpath(name + ".held")
        until(file.exists)
        pid = int(file.read_text())
        file.unlink()
        return pid

    def release(self, name):
        self.folder.joinpath(name + ".hold").unlink()

    def ask(self, path="/"):
        with Client(self.address) as client:
            return self.answer_to(client, path)

    @staticmethod
    def answer_to(client, path="/"):
        answer = client.ask([f"GET {path} HTTP/1.1", "Host: a", "Connection: close"])
        assert answer.status == 200
        return tuple(map(int, answer.body.split()))

    def ask_often(self, count=24):
        """Who answers so many requests at a time; each socket gets some of them."""
        asked = [gevent.spawn(self.ask) for _ in range(count)]
        gevent.joinall(asked, timeout=30 * SCALE, raise_error=True)
        return {greenlet.get(block=False)[0] for greenlet in asked}

    def ask_slowly(self):
        """A request whose answer is held up, and who gives it."""
        self.hold("request")
        asked = gevent.spawn(self.ask, "/hold")
        return asked, self.held("request")

    def workers(self, count):
        """The workers, when so many answer."""
        found = set()

        def enough():
            found.clear()
            found.update(self.ask_often())
            return len(found) == count

        until(enough)
        return set(found)


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def start(tmp_path):
    services = []

    def start(*arguments):
        services.append(Service(tmp_path, *arguments))
        return services[-1]

    yield start
    for service in services:
        service.__exit__()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_a_signal_to_a_child_before_it_is_a_worker(start, number):
    service = start("--workers", "1")
    (first,) = service.workers(1)
    service.hold("fork")
    service.send(signal.SIGTTIN)
    child = service.held("fork")
    os.kill(child, number)
    service.release("fork")
    service.wait_for(rf"worker {child} ended by signal {number:d}")
    service.workers(2)
    assert first in service.workers(2)
    assert "stopping" not in service.output
    assert "reloading" not in service.output


def test_one_worker_less_while_it_starts(start):
    service = start()
    (first,) = service.workers(1)
    for where in ("fork", "import"):
        service.hold(where)
        service.send(signal.SIGTTIN)
        child = service.held(where)
        # Its share of connections waits for nobody.
        assert service.ask_often() == {first}
        service.send(signal.SIGTTOU)
        service.release(where)
        until(lambda child=child: is_gone(child))
        assert service.ask_often() == {first}
    assert "stopping" not in service.output
    service.send(signal.SIGTTIN)
    assert first in service.workers(2)
    service.send(signal.SIGTTOU)
    assert service.workers(1) == {first}


def test_many_more_and_many_less(start):
    service = start()
    for _ in range(60):
        service.send(signal.SIGTTIN)
        service.send(signal.SIGTTOU)
        service.ask()
    service.ask_often()
    assert "stopping" not in service.output
    service.send(signal.SIGTERM)
    assert service.end() == 0


def test_a_repeated_stop_is_one(start):
    service = start()
    service.workers(1)
    asked, worker = service.ask_slowly()
    service.send(signal.SIGTERM)
    service.wait_for("stopping")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTTIN, signal.SIGTERM, signal.SIGTTOU):
        service.send(number)
        os.kill(worker, signal.SIGTERM)
        gevent.sleep(0.01)
    service.release("request")
    assert asked.get(timeout=30 * SCALE)[0] == worker
    assert service.end() == 0
    assert service.output.count("stopping") == 1
    assert "reloading" not in service.output


def test_a_stop_that_becomes_one_at_once(start):
    service = start()
    service.workers(1)
    asked, _worker = service.ask_slowly()
    service.send(signal.SIGTERM)
    service.wait_for("stopping")
    service.send(signal.SIGINT)
    service.send(signal.SIGINT)
    assert service.end() == 0
    assert service.output.count("stopping at once") == 1
    with pytest.raises((EOFError, OSError)):
        asked.get(timeout=30 * SCALE)


def test_a_stop_while_the_worker_starts(start, tmp_path):
    tmp_path.joinpath("import.hold").touch()
    service = start()
    service.held("import")
    with Client(service.address) as client:
        answer = gevent.spawn(service.answer_to, client)
        gevent.sleep(0)
        service.send(signal.SIGTERM)
        service.wait_for("stopping")
        service.send(signal.SIGTERM)
        service.release("import")
        answer.get(timeout=30 * SCALE)
    assert service.end() == 0
    # Without anybody who waits there is nothing to wait for.
    tmp_path.joinpath("import.hold").touch()
    service = start()
    service.held("import")
    service.send(signal.SIGTERM)
    assert service.end() == 0


def test_a_reload_while_the_worker_starts(start, tmp_path):
    tmp_path.joinpath("import.hold").touch()
    service = start()
    old = service.held("import")
    tmp_path.joinpath("appmodule.py").write_text(APPLICATION.replace("VERSION = 1", "VERSION = 2"))
    service.send(signal.SIGHUP)
    new = service.held("import")
    assert new != old
    service.release("import")
    until(lambda: service.ask() == (new, 2))
    until(lambda: is_gone(old))
    assert service.workers(1) == {new}


def test_the_sockets_of_a_worker_that_keeps_dying(start, tmp_path):
    service = start("--workers", "3")
    workers = service.workers(3)
    tmp_path.joinpath("appmodule.py").write_text("raise ImportError('half an edit')")
    dead = min(workers)
    os.kill(dead, signal.SIGKILL)
    service.wait_for("again in 2 s")
    left = workers - {dead}
    until(lambda: service.ask_often(60) == left)
    # One less is the one that does not serve.
    service.send(signal.SIGTTOU)
    assert service.ask_often(60) <= left
    service.send(signal.SIGTTIN)
    service.wait_for("again in 1 s(.|\n)*again in 1 s")
    assert service.ask_often(60) <= left
    # The new code is tried at once, and not at the end of a pause.
    tmp_path.joinpath("appmodule.py").write_text(APPLICATION.replace("VERSION = 1", "VERSION = 2"))
    service.send(signal.SIGHUP)
    until(lambda: {service.ask()[1] for _ in range(20)} == {2})
    new = service.workers(3)
    assert not new & workers


def test_a_worker_that_is_told_to_end_by_others(start):
    service = start("--workers", "2")
    workers = service.workers(2)
    asked, worker = service.ask_slowly()
    os.kill(worker, signal.SIGTERM)
    # It has an answer to finish; meanwhile the other one accepts for both.
    until(lambda: service.ask_often(40) == workers - {worker})
    assert service.ask_often(40) == workers - {worker}
    service.release("request")
    assert asked.get(timeout=30 * SCALE)[0] == worker
    service.wait_for(f"worker {worker} ended with 0")
    service.workers(2)


def test_signals_that_mean_nothing(start):
    service = start()
    worker = service.workers(1)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD) * 50:
        service.send(number)
    service.send(signal.SIGTTIN)
    assert worker < service.workers(2)
    service.send(signal.SIGTERM)
    assert service.end() == 0


def test_without_the_means_for_a_worker(monkeypatch, capsys):
    from gevent.pywsgi import _master
    from gevent.pywsgi._command import parse

    def refuse():
        raise OSError(11, "Resource temporarily unavailable")

    master = _master.Master(parse(["-b", "127.0.0.1:0", "a:b"]))
    master.bind()
    slot = master.new_slot()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    monkeypatch.setattr(os, "fork", refuse)
    master.start(slot)
    assert slot.worker is None
    assert slot.due is not None
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask
    assert "no worker could be started" in capsys.readouterr().err
    master.close_sockets()
    os.close(master._reader)
    os.close(master._writer)
