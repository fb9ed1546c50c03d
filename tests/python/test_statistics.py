"""``get_hub().loop``: its name, its backend, and what it counts."""

import os
import socket as stdlib_socket
import subprocess
import sys
import time

import gevent
import pytest
from gevent import socket
from gevent.hub import get_hub

pytestmark = pytest.mark.ours


def test_name_and_backend():
    loop = get_hub().loop
    asked = os.environ.get("GEVENT_LOOP", "epoll")
    assert loop.backend == asked.split(",")[0]
    assert loop.name == loop.backend
    assert loop.backend in repr(loop)
    assert isinstance(loop.backend_int, int)


def test_counts_grow_with_what_they_count():
    loop = get_hub().loop
    keys = set(
        "iterations sleeps callbacks fired watchers timers sockets polls events syscalls "
        "syscalls_saved operations lag lag_max".split()
    )
    before = loop.statistics
    assert set(before) == keys
    gevent.sleep(0.001)
    after = loop.statistics
    assert after["polls"] > before["polls"]
    assert after["sleeps"] > before["sleeps"]
    assert after["iterations"] > before["iterations"]
    assert after["syscalls"] > before["syscalls"]
    before = after
    loop.run_callback(lambda: None)
    gevent.sleep(0)
    after = loop.statistics
    assert after["callbacks"] >= before["callbacks"] + 2
    timer = loop.timer(0.001)
    timer.start(lambda: None)
    assert loop.statistics["watchers"] == before["watchers"] + 1
    assert loop.statistics["timers"] >= 1
    gevent.sleep(0.002)
    assert loop.statistics["fired"] > before["fired"]
    timer.close()


def test_a_connection_saves_calls():
    a, b = socket.socketpair()
    with a, b:

        def echo():
            while data := b.recv(100):
                b.send(data)

        server = gevent.spawn(echo)
        a.send(b"first")
        a.recv(100)
        before = get_hub().loop.statistics
        for _ in range(100):
            a.send(b"more")
            a.recv(100)
        after = get_hub().loop.statistics
        assert after["events"] - before["events"] >= 100
        # Each of the 200 waits would have armed and disarmed the descriptor.
        assert after["syscalls_saved"] - before["syscalls_saved"] >= 100
        assert after["sockets"] >= 2
        a.shutdown(stdlib_socket.SHUT_WR)
        server.get(timeout=30)


def lag_of(block):
    """`lag_max` of a new thread's loop after `block` ran there."""

    def run():
        block()
        return get_hub().loop.statistics["lag_max"]

    return get_hub().threadpool.apply(run)


def test_lag_is_how_late_timers_are():
    def block():
        sleeper = gevent.spawn(gevent.sleep, 0.001)
        gevent.sleep(0)
        time.sleep(0.05)
        sleeper.join()

    assert lag_of(block) >= 0.049


def test_lag_is_how_long_a_greenlet_kept_the_loop_from_its_events():
    def block():
        gevent.spawn(time.sleep, 0.05)
        gevent.sleep(0.2)  # is on time, and tells nothing

    assert lag_of(block) >= 0.049


def test_lag_counts_callbacks_that_block_one_after_the_other_in_a_turn():
    def block():
        a, b = socket.socketpair()
        with a, b:
            for _ in range(2):
                gevent.spawn(lambda: (time.sleep(0.03), a.send(b"x")))
            b.recv(1)

    assert lag_of(block) >= 0.059


def test_a_sleep_of_the_loop_is_no_lag():
    def sleep_a_second():
        loop = get_hub().loop
        before = loop.statistics["lag_max"]
        gevent.sleep(1)
        return loop.statistics["lag_max"] - before

    # A machine that is busy may keep the thread waiting, but hardly for a second each time.
    assert any(get_hub().threadpool.apply(sleep_a_second) < 1 for _ in range(5))


def test_lag_is_that_of_the_last_turn():
    loop = get_hub().loop
    gevent.spawn(time.sleep, 0.5)
    gevent.sleep(0.001)
    assert loop.statistics["lag_max"] >= 0.49
    with gevent.Timeout(30):
        while loop.statistics["lag"] >= 0.49:
            gevent.sleep(0.002)


def test_a_destroyed_loop_has_none():
    loop = get_hub().loop.__class__(default=False)
    assert loop.statistics["polls"] == 0
    loop.destroy()
    with pytest.raises(ValueError):
        loop.statistics  # noqa: B018


def run(loop, code, **env):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "GEVENT_LOOP": loop, **env},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_the_environment_and_the_configuration_choose():
    show = "import gevent; print(gevent.get_hub().loop.backend, gevent.config.loop)"
    assert run("epoll", show).stdout.split()[0] == "epoll"
    later = "import gevent; gevent.config.loop = 'epoll'; print(gevent.get_hub().loop.backend)"
    assert run("auto", later).stdout == "epoll\n"
    unknown = run("sometimes", show)
    assert unknown.returncode != 0
    assert "sometimes" in unknown.stderr


#: Forbids system call ``number`` for this process and what it starts, as a container's filter does.
FORBID = """
import ctypes, struct
def forbid(number, errno):
    give, allow = 0x50000 | errno, 0x7FFF0000
    steps = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, give), (6, 0, 0, allow)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *s) for s in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 4, ctypes.addressof(code)))
    libc = ctypes.CDLL(None)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, program) == 0
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="seccomp is Linux's")
@pytest.mark.parametrize(
    ("number", "call"),
    [(425, "io_uring_setup(2)"), (427, "io_uring_register(2)"), (426, "io_uring_enter(2)")],
)
def test_a_filter_forbids_the_ring(number, call):
    show = FORBID + f"forbid({number}, 1)\nimport gevent; print(gevent.get_hub().loop.backend)"
    alone = run("uring", show)
    assert alone.returncode != 0
    assert call in alone.stderr
    assert "Operation not permitted" in alone.stderr
    assert run("uring,epoll", show).stdout == "epoll\n"
    assert run("auto", show).stdout == "epoll\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="seccomp is Linux's")
@pytest.mark.parametrize("errno", [1, 22, 38])
def test_a_wait_that_the_machine_does_not_know(errno):
    # epoll_pwait2, as sandboxes and emulated kernels refuse it.
    sleep = f"import gevent; forbid(441, {errno}); gevent.sleep(0.0015); print('slept')"
    outcome = run("epoll", FORBID + sleep)
    assert (outcome.stdout, outcome.stderr) == ("slept\n", "")
