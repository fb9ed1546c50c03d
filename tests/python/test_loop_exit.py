"""What `LoopExit` says, in processes of their own: the loop would wait for other threads."""

import subprocess
import sys

import pytest

START = """
import gevent
from gevent import event, lock, queue
from gevent.exceptions import LoopExit

def deadlock():
    try:
        event.AsyncResult().get()
    except LoopExit as error:
        return error

def waits_for_an_event():
    event.Event().wait()

def waits_for_an_item():
    queue.Queue().get()

def waits_for_a_permit():
    lock.Semaphore(0).acquire()
"""


def run(tmp_path, code):
    script = tmp_path / "script.py"
    script.write_text(START + code)
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=40, check=False
    )
    assert done.returncode == 0, done.stderr


def test_it_has_a_message_a_hub_and_handles(tmp_path):
    code = """
error = deadlock()
assert error.hub is gevent.get_hub() and len(error.args) == 3
assert str(error).startswith("This operation would block forever\\n\\tHub: <Hub"), str(error)
"""
    run(tmp_path, code)


@pytest.mark.ours
def test_it_says_which_greenlets_wait_for_what(tmp_path):
    code = """
gs = [gevent.spawn(f) for f in (waits_for_an_event, waits_for_an_item, waits_for_a_permit)]
text = str(deadlock())
for g, call in zip(gs, ["Event().wait()", "Queue().get()", ".acquire()"]):
    [line] = [line for line in text.splitlines() if line.startswith(repr(g))]
    assert g._run.__name__ in line and __file__ in line and line.endswith(call), line
gevent.killall(gs)
assert "waits_for" not in str(deadlock())
"""
    run(tmp_path, code)


@pytest.mark.ours
def test_a_crowd_is_cut_short(tmp_path):
    code = """
gs = [gevent.spawn(waits_for_an_event) for _ in range(80)]
lines = str(deadlock()).splitlines()
assert sum("> in waits_for_an_event" in line for line in lines) == 50 and lines[-1] == "...", lines
"""
    run(tmp_path, code)
