"""Subscribers to the patch events that object to a part without which others cannot work."""

import pytest
from scripts import lines_of, run

OBJECT = """
import sys
from gevent import events, monkey
def object_to(event):
    if isinstance(event, events.GeventWillPatchModuleEvent) and event.module_name in {names}:
        raise events.DoNotPatch
events.subscribers.append(object_to)
"""

USE = """
import os, threading
thread = threading.Thread(target=print, args=("ran",))
thread.start()
thread.join()
child = os.fork()
if not child:
    thread = threading.Thread(target=os.write, args=(1, b"ran\\n"))
    thread.start()
    thread.join()
    sys.exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.ours
def test_to_threading_alone():
    code = """
try:
    monkey.patch_all()
except RuntimeError as error:
    print("threading" in str(error) and "_thread" in str(error))
import _thread
print(_thread.allocate_lock, monkey.is_module_patched("_thread"), threading_is_native())
"""
    head = """
import threading
def threading_is_native():
    return threading.get_ident() == threading.main_thread().ident
"""
    lines = lines_of(head + OBJECT.format(names=["threading"]) + code + USE)
    assert lines == ["True", "<built-in function allocate_lock> False True", "ran", "ran", "0"]


@pytest.mark.ours
def test_to_socket_alone():
    done = run(OBJECT.format(names=["socket"]) + "monkey.patch_all()")
    assert done.code == 1
    assert "RuntimeError" in done.err and "socket" in done.err and "ssl" in done.err


@pytest.mark.parametrize("names", [["socket", "ssl"], ["_thread", "threading"], ["ssl"], ["time"]])
def test_to_what_may_be_left_out(names):
    code = OBJECT.format(names=names) + "print(monkey.patch_all())\n" + USE
    assert lines_of(code) == ["True", "ran", "ran", "0"]


def test_an_argument_is_no_objection():
    code = "from gevent import monkey; print(monkey.patch_all(socket=False, dns=False))"
    assert lines_of(code) == ["True"]
