"""Signals of Python and a hub that sleeps: none waits for the next event, wherever it comes."""

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
import threading
import warnings

import pytest

import gevent
from gevent.event import Event
from scripts import lines_of

# Sent by a C function that looks at no signals afterwards, as `os.kill` does since 3.13.
kill = ctypes.PyDLL(None).kill

SENDER = """
import os, random, signal, sys, time
parent = os.getppid()
while os.read(0, 1):
    # At once, or when a sleep of the main thread that goes on is looked at again.
    until = time.monotonic() + random.choice([0, 0.0098]) + random.random() / 2000
    while time.monotonic() < until:
        pass
    os.kill(parent, signal.SIGUSR1)
"""


@pytest.fixture
def heard():
    """An event that SIGUSR1 sets; nothing else is going to wake the hub."""
    event = Event()
    keep_alive = gevent.get_hub().loop.async_()
    keep_alive.start(lambda: None)
    before = signal.signal(signal.SIGUSR1, lambda *_: event.set())
    yield event
    signal.signal(signal.SIGUSR1, before)
    keep_alive.close()


@pytest.mark.ours
def test_signal_after_the_last_python_before_the_sleep(heard):
    gevent.get_hub().loop.run_callback(kill, os.getpid(), signal.SIGUSR1)
    with gevent.Timeout(20):
        assert heard.wait()


@pytest.mark.ours
def test_signal_that_another_thread_takes(heard):
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    sender = threading.Timer(0.05, lambda: signal.pthread_kill(other.ident, signal.SIGUSR1))
    sender.start()
    try:
        with gevent.Timeout(20):
            assert heard.wait()
    finally:
        end.set()
        other.join()
        sender.join()


@pytest.mark.ours
def test_signals_at_random_moments_are_never_missed(heard):
    child = subprocess.Popen([sys.executable, "-c", SENDER], stdin=subprocess.PIPE, bufsize=0)
    try:
        for number in range(300):
            heard.clear()
            child.stdin.write(b"x")
            with gevent.Timeout(20, AssertionError(f"missed in round {number}")):
                assert heard.wait()
    finally:
        child.stdin.close()
        child.wait()


@pytest.mark.ours
def test_interrupt_before_the_sleep_reaches_main(heard):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        gevent.get_hub().loop.run_callback(kill, os.getpid(), signal.SIGINT)
        with gevent.Timeout(20), pytest.raises(KeyboardInterrupt):
            heard.wait()
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_programs_own_descriptor_gets_every_signal(heard):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(30)
    assert signal.set_wakeup_fd(ours.fileno()) == -1
    try:
        sender = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
        sender.start()
        with gevent.Timeout(20):
            # Woken by a timer: upstream hears of the signal only then.
            while not heard.wait(0.2):
                pass
        sender.join()
        assert theirs.recv(100) == bytes([signal.SIGUSR1])
    finally:
        assert signal.set_wakeup_fd(-1) == ours.fileno()
        ours.close()
        theirs.close()


def test_python_finds_no_descriptor_that_it_did_not_set(heard):
    found = []

    def look(*_):
        found.append(signal.set_wakeup_fd(-1))
        heard.set()

    signal.signal(signal.SIGUSR1, look)
    sender = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    sender.start()
    with gevent.Timeout(20):
        while not heard.wait(0.2):
            pass
    sender.join()
    gevent.sleep(0.001)
    assert [*found, signal.set_wakeup_fd(-1)] == [-1, -1]


def test_child_of_another_thread_has_a_descriptor_of_its_own(heard):
    """Forked while the main thread sleeps."""
    status = []

    def fork():
        try:
            with warnings.catch_warnings():
                # CPython warns of forks in a process with threads.
                warnings.simplefilter("ignore")
                pid = os.fork()
            if pid == 0:
                os._exit(0 if signal.set_wakeup_fd(-1) == -1 else 1)
            status.append(os.waitpid(pid, 0)[1])
        finally:
            heard_soon.send()

    heard_soon = gevent.get_hub().loop.async_()
    heard_soon.start(heard.set)
    forker = threading.Timer(0.05, fork)
    forker.start()
    with gevent.Timeout(20):
        assert heard.wait()
    forker.join()
    heard_soon.close()
    assert status == [0]


@pytest.mark.ours
def test_child_of_another_thread_after_a_hook_of_the_program():
    """The hook ran before ours, which must not undo what it did."""
    found = lines_of(
        """
        import os, signal, socket, threading, time
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
        import gevent
        signal.set_wakeup_fd(ours.fileno())
        hub = gevent.get_hub()
        done = hub.loop.async_()
        def asleep():
            # In a long sleep the loop's own descriptor is there.
            with open("/proc/self/task/%d/syscall" % os.getpid()) as file:
                return file.read().split()[0] not in ("running", "-1")
        def fork():
            while not asleep():
                time.sleep(0.01)
            pid = os.fork()
            if not pid:
                os._exit(0 if signal.set_wakeup_fd(-1) == -1 else 1)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            done.send()
        threading.Thread(target=fork).start()
        hub.wait(done)
        print(signal.set_wakeup_fd(-1) == ours.fileno())
        """,
        PYTHONWARNINGS="ignore",
    )
    assert found == ["0", "True"]


def unread():
    """How many bytes are in the pipes of this process."""
    total = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
                count = fcntl.ioctl(int(fd), termios.FIONREAD, bytes(4))
                total += int.from_bytes(count, sys.byteorder)
        except OSError:
            pass
    return total


@pytest.mark.ours
def test_nothing_is_left_of_the_signals_of_many_sleeps(heard):
    before = unread()
    for _ in range(20):
        heard.clear()
        sender = threading.Timer(0.03, os.kill, (os.getpid(), signal.SIGUSR1))
        sender.start()
        with gevent.Timeout(20):
            assert heard.wait()
        sender.join()
    gevent.sleep(0.03)
    assert unread() <= before


def test_the_status_of_a_child_counts_though_sigchld_is_ignored():
    assert lines_of("""
        from gevent import monkey; monkey.patch_all()
        import os, signal, subprocess

        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        print(subprocess.call(["sh", "-c", "exit 3"]))
        pid = os.fork()
        if not pid:
            os._exit(4)
        print(os.waitpid(pid, 0)[1] >> 8)
        print(signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN)
        """) == ["3", "4", "True"]
