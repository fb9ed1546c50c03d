"""Allocations that fail: Python's are MemoryError, Rust's own end the process with a sentence."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest
import scripts

ROOT = pathlib.Path(__file__).resolve().parents[2]

FIRST_USE = """
    import _testcapi, _thread, os, sys
    import gevent
    from greenlet import getcurrent

    def first_use():
        # Nothing of Python's is called between the start and the end but what is asked.
        _testcapi.set_nomemory(n, n + 1)
        try:
            use()
        except MemoryError:
            _testcapi.remove_mem_hooks()
            kinds.append('MemoryError')
        else:
            _testcapi.remove_mem_hooks()
            kinds.append('fine')
        finally:
            use()
            ended.release()

    use = USE
    use()
    kinds = []
    ended = _thread.allocate_lock()
    ended.acquire()
    for n in range(1, 40):
        _thread.start_new_thread(first_use, ())
        ended.acquire()
    assert len(kinds) == 39, kinds
    assert 'MemoryError' in kinds and kinds[-1] == 'fine', kinds
    use()
    print('end')
"""


@pytest.mark.ours
@pytest.mark.parametrize("use", ["getcurrent", "lambda: gevent.sleep(0)", "gevent.get_hub"])
def test_a_thread_s_first_use(use):
    pytest.importorskip("_testcapi")
    done = scripts.run(FIRST_USE.replace("USE", use))
    assert done.lines == ["end"], (done.code, done.err)


@pytest.mark.ours
def test_operations():
    pytest.importorskip("_testcapi")
    loop = os.environ.get("GEVENT_LOOP", "epoll")
    tool = ROOT / "tools/faults/nomemory.py"
    done = subprocess.run(
        [sys.executable, tool, "--loop", loop, "--runs", "120"],
        capture_output=True,
        text=True,
        timeout=55 * scripts.SCALE,
        check=False,
    )
    assert done.stdout.endswith("120 passed, 0 failed, 0 skipped\n"), done.stdout + done.stderr
    assert done.returncode == 0
    assert "MemoryError" in done.stdout


NO_ROOM = """
    import resource
    import gevent

    loop = gevent.get_hub().loop
    kept = [loop.timer(1000) for _ in range(1000)]
    for timer in kept:
        timer.start(len, ())
    with open('/proc/self/statm') as f:
        used = int(f.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20), -1))
    block = 1 << 20
    held = []
    while block > 4096:
        try:
            held.append(bytearray(block))
        except MemoryError:
            block //= 2
    while True:
        try:
            kept.append(loop.timer(1000))
            kept[-1].start(len, ())
        except MemoryError:
            # Python's has none either: what was held for it is enough for the loop to go on.
            held.pop()
"""


@pytest.mark.ours
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS is Linux's")
def test_rust_s_allocator():
    done = scripts.run(NO_ROOM)
    assert "gevent: Rust's allocator has no memory for " in done.err, (done.code, done.err)
    assert "panicked" not in done.err
    assert done.code == -signal.SIGABRT
