"""The C stacks of greenlets: their size, what an overflow says, what idle ones give back."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.ours

OVERFLOW = """
import sys
{before}
import gevent
{after}

def deeper(_):
    return sorted([1, 2], key=deeper)

sys.setrecursionlimit(100_000)
{run}
"""
HERE = "gevent.spawn(deeper, 1).join()"
THREAD = """
import threading
thread = threading.Thread(target=lambda: gevent.spawn(deeper, 1).join())
thread.start()
thread.join()
"""
FAULTHANDLER = "import faulthandler; faulthandler.enable()"


def run(code, **env):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={k: v for k, v in os.environ.items() if k != "PYTHONFAULTHANDLER"} | env,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("before", "after"), [("", ""), (FAULTHANDLER, ""), ("", FAULTHANDLER)]
)
@pytest.mark.parametrize("how", [HERE, THREAD], ids=["main", "thread"])
def test_an_overflow_says_what_to_do_and_crashes(before, after, how):
    done = run(OVERFLOW.format(before=before, after=after, run=how), GEVENT_STACK_SIZE="256k")
    if sys.version_info >= (3, 14):
        # CPython looks at the stack itself there, whenever C code calls Python.
        assert "RecursionError: Stack overflow" in done.stderr
        return
    sentences = [line for line in done.stderr.splitlines() if line.startswith("gevent: ")]
    assert len(sentences) == 1, done.stderr
    assert "overflowed its 256 KiB" in sentences[0]
    assert "GEVENT_STACK_SIZE to a larger size, such as 512k" in sentences[0]
    assert done.returncode < 0
    said = "Fatal Python error: Segmentation fault" in done.stderr
    assert said == bool(before or after)


def test_a_larger_stack_carries_deeper_recursion():
    # A level takes about 2 KiB, and up to three steps of the limit.
    code = """
import sys
import gevent

sys.setrecursionlimit(10_000)

def deeper(n):
    return n and sorted([n - 1], key=deeper)

gevent.spawn(deeper, 400).get()
"""
    assert run(code, GEVENT_STACK_SIZE="8m").returncode == 0
    assert run(code, GEVENT_STACK_SIZE="256k").returncode != 0


def test_idle_stacks_give_their_memory_back():
    code = """
import gevent, psutil
from gevent.event import Event

rss = psutil.Process().memory_info().rss
go = Event()
jobs = [gevent.spawn(go.wait) for _ in range(20_000)]
gevent.sleep(0)
full = psutil.Process().memory_info().rss - rss
go.set()
gevent.joinall(jobs)
del jobs
left, tries = full, 0
while left >= full / 2 and tries < 30:
    gevent.sleep(0.5)
    left, tries = psutil.Process().memory_info().rss - rss, tries + 1
print(full, left)
"""
    pytest.importorskip("psutil")
    done = run(code)
    full, left = map(int, done.stdout.split())
    assert full > 20_000 * 4096, done.stderr
    assert left < full / 2


SIZE = """
import gevent
from gevent.event import Event

def parked(n):
    jobs = [gevent.spawn(Event().wait) for _ in range(n)]
    gevent.sleep(0)
    assert not any(job.ready() for job in jobs)
    return jobs

def size():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) >> 10 for line in file if line.startswith("VmSize"))
"""


def mebibytes(code, before=""):
    """What *code* adds to the address space, as it prints it."""
    env = {k: v for k, v in os.environ.items() if k != "GEVENT_STACK_SIZE"}
    code = before + SIZE + "gevent.sleep(0); begin = size()\n" + code + "print(size() - begin)\n"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_address_space_is_ample_for_some_and_little_for_many():
    some = mebibytes("jobs = parked(1000)\n")
    assert 8 * 900 < some < 8 * 1500
    # Beyond 8192 a stack has a megabyte.
    many = mebibytes("jobs = parked(8192)\nbegin = size()\njobs += parked(20_000)\n")
    assert 18_000 < many < 24_000


def test_a_limit_of_address_space_is_not_used_up_by_stacks():
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
    assert mebibytes("jobs = parked(1000)\n", limit) < 1300
