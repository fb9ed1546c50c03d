"""`signal.pthread_kill` with the numbers that a patched `threading` gives out: they are greenlets',
and no native thread's. In processes of their own."""

import pytest
from scripts import lines_of, run

START = """
from gevent import monkey
monkey.patch_all()
import os, signal, threading
import gevent

got = []
def handler(signum, frame):
    got.append(monkey.get_original("_thread", "get_ident")() == main)
signal.signal(signal.SIGUSR1, handler)
main = monkey.get_original("_thread", "get_ident")()
"""


@pytest.mark.ours
@pytest.mark.parametrize(
    "number",
    [
        "threading.get_ident()",
        "threading.main_thread().ident",
        "main",
        "id(gevent.spawn(gevent.sleep, 1000))",
        "id(gevent.get_hub())",
    ],
)
def test_from_the_main_greenlet(number):
    code = f"""
signal.pthread_kill({number}, signal.SIGUSR1)
while not got:
    gevent.sleep(0.001)
print(got)
"""
    assert lines_of(START + code) == ["[True]"]


@pytest.mark.ours
def test_between_threads_that_are_greenlets():
    code = """
me = threading.get_ident()
def target():
    signal.pthread_kill(me, signal.SIGUSR1)
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    end.wait()
end = threading.Event()
thread = threading.Thread(target=target)
thread.start()
signal.pthread_kill(thread.ident, 0)
end.set()
thread.join()
while len(got) < 2:
    gevent.sleep(0.001)
print(got)
"""
    assert lines_of(START + code) == ["[True, True]"]


@pytest.mark.ours
def test_from_and_to_a_native_thread():
    code = """
me = threading.get_ident()
numbers = []
def native():
    numbers.append(threading.get_ident())
    other = gevent.spawn(gevent.sleep, 1000)
    gevent.sleep(0)
    numbers.append(id(other))
    signal.pthread_kill(me, signal.SIGUSR1)
    gevent.sleep(1000)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
monkey.get_original("_thread", "start_new_thread")(native, ())
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
while not got:
    gevent.sleep(0.001)
print(got)

# It blocks the signal, and so keeps what it was sent.
def pending(field):
    tasks = os.listdir("/proc/self/task")
    for task in tasks:
        with open(f"/proc/self/task/{task}/status") as status:
            [mask] = [line.split()[1] for line in status if line.startswith(field)]
        if int(mask, 16) & 1 << signal.SIGUSR2 - 1:
            yield int(task) != os.getpid()
for number in numbers:
    print(list(pending("SigPnd:")))
    signal.pthread_kill(number, signal.SIGUSR2)
print(list(pending("SigPnd:")))
os._exit(0)
"""
    assert lines_of(START + code) == ["[True]", "[]", "[True]", "[True]"]


@pytest.mark.ours
@pytest.mark.parametrize("number", ["1", "id(object)", "ended"])
def test_what_is_no_thread(number):
    code = f"""
ended = gevent.spawn(int)
ended.join()
keep, ended = ended, id(ended)
try:
    signal.pthread_kill({number}, signal.SIGUSR1)
except ProcessLookupError:
    print("no thread")
"""
    assert lines_of(START + code) == ["no thread"]


@pytest.mark.ours
def test_what_is_no_number():
    code = """
try:
    signal.pthread_kill("1", 0)
except TypeError:
    print("no number")
"""
    assert lines_of(START + code) == ["no number"]


@pytest.mark.ours
def test_the_standard_library_s_test_of_wsgiref():
    if run("import test.test_wsgiref").code:
        pytest.skip("this CPython comes without its own tests")
    code = """
from gevent import monkey
monkey.patch_all()
import unittest
from test import test_wsgiref
unittest.main(test_wsgiref, argv=[""])
"""
    done = run(code, timeout=60)
    assert done.code == 0 and "OK" in done.err, done.err
