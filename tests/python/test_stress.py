"""Short runs of what `make soak` does for long: threads and hubs at once, nothing left behind."""

import pathlib
import subprocess
import sys

import pytest

TOOLS = pathlib.Path(__file__).parents[2] / "tools"


def run(script, *args):
    command = [sys.executable, str(TOOLS / script), *args]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()


@pytest.mark.ours
def test_threads_and_hubs_share_everything():
    run("stress_threads.py", "--seconds", "2")


def test_cycles_leave_nothing():
    run("leak_cycles.py", "--cycles", "50000")
