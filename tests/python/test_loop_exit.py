"""What `LoopExit` says, in processes of their own: the loop would wait for other threads."""

import subprocess
import sys

import pytest
from scripts import lines_of

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


# A finalizer that the end of a loop runs, and that lets go of what the loop still holds.
FINALIZER = """
import gevent, sys, threading

def fill(loop, make, end):
    class Ends:
        def called(self):
            pass

        def __del__(self):
            while shared:
                end(shared.pop())

    shared = []
    if make is None:
        for i in range(8):
            watcher = loop.timer(1000 + i)
            watcher.start(Ends().called)
            shared.append(watcher)
        return []
    watcher = loop.timer(1000)
    watcher.start(Ends().called)
    del watcher
    shared.extend(make(1000 + i) for i in range(8))
    return list(shared)

def timeout(seconds):
    made = gevent.Timeout(seconds)
    made.start()
    return made

def later(seconds):
    return gevent.spawn_later(seconds, print)
"""


@pytest.mark.parametrize(
    "how",
    [
        "None, lambda w: w.stop()",
        "timeout, lambda t: t.cancel()",
        "later, lambda g: g.kill(block=False)",
    ],
)
@pytest.mark.parametrize("where", ["destroy", "thread"])
def test_finalizers_while_a_loop_is_destroyed(how, where):
    if where == "destroy":
        source = f"""
loop = gevent.get_hub().loop
kept = fill(loop, {how})
before = [sys.getrefcount(one) for one in kept]
loop.destroy()
after = [sys.getrefcount(one) for one in kept]
# The loop's own reference is given back once, and that of the finalizer's list.
assert all(b - a <= 2 for b, a in zip(before, after)), (before, after)
print("done")
"""
    else:
        source = f"""
def run():
    fill(gevent.get_hub().loop, {how})
    gevent.spawn(gevent.sleep, 100)
    gevent.sleep(0)

for _ in range(3):
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
print("done")
"""
    assert lines_of(FINALIZER + source) == ["done"]
