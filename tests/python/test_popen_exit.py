"""Leaving `with Popen` while another greenlet is inside one of its pipes: what threads do. And what
closing a file does to whoever waits in it."""

import os
import sys

import pytest

import gevent
from gevent import fileobject, subprocess
from gevent._fileobjectcommon import cancel_wait_ex

# Says a, and b when it is told to.
TALKS = [
    sys.executable,
    "-c",
    "import os; os.write(1, b'a\\n'); os.read(0, 1); os.write(1, b'b\\n')",
]

WAYS = {
    "read": lambda file: file.read(),
    "iter": lambda file: list(file),
    "loop": lambda file: list(iter(lambda: file.read(1), file.read(0))),
}


def inside(file):
    """Wait until a greenlet waits in the file."""
    while not file.fileio._waiting:
        gevent.sleep(0.001)


@pytest.mark.ours
@pytest.mark.parametrize("settings", [{}, {"text": True}, {"bufsize": 0}], ids=str)
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("pipe", ["stdout", "stderr"])
def test_a_reader_gets_everything(how, settings, pipe):
    theirs, ours = os.pipe()
    command = TALKS if pipe == "stdout" else [*TALKS[:2], TALKS[2].replace("write(1", "write(2")]
    with subprocess.Popen(command, stdin=theirs, **{pipe: subprocess.PIPE}, **settings) as child:
        os.close(theirs)
        file = getattr(child, pipe)
        reader = gevent.spawn(WAYS[how], file)
        inside(file)
        gevent.spawn(os.write, ours, b"x")
    os.close(ours)
    got = reader.get(timeout=30)
    text = got if how == "read" else got[0][:0].join(got)
    assert text == ("a\nb\n" if "text" in settings else b"a\nb\n")
    assert child.returncode == 0 and file.closed


@pytest.mark.ours
def test_a_reader_of_a_child_that_reads():
    # The child ends with its input, which only leaving closes.
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdin.write(b"abc")
        reader = gevent.spawn(child.stdout.read)
        inside(child.stdout)
    assert (reader.get(timeout=30), child.returncode) == (b"abc", 0)


@pytest.mark.ours
def test_a_writer_gets_rid_of_everything():
    read, go = os.pipe()
    count = "import os, sys; os.read(%d, 1); sys.exit(len(sys.stdin.buffer.read()) != 1000000)"
    with subprocess.Popen(
        [sys.executable, "-c", count % read],
        stdin=subprocess.PIPE,
        pass_fds=[read],
    ) as child:
        writer = gevent.spawn(child.stdin.write, b"x" * 1_000_000)
        inside(child.stdin)
        gevent.spawn(os.write, go, b"x")
    os.close(read)
    os.close(go)
    assert writer.get(timeout=30) == 1_000_000 and child.returncode == 0


def test_nobody_inside():
    # Its output is closed at once, and it dies of that.
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"y\n"
    assert child.returncode != 0 and child.stdout.closed


def test_an_exception_leaves_with_a_reader_inside():
    with pytest.raises(ZeroDivisionError):
        with subprocess.Popen(["sleep", "1000"], stdout=subprocess.PIPE) as child:
            reader = gevent.spawn(child.stdout.read)
            gevent.sleep(0.01)
            child.kill()
            raise ZeroDivisionError
    assert (reader.get(timeout=30), child.returncode) == (b"", -9)


@pytest.mark.ours
def test_the_wait_for_a_reader_can_be_cut_short():
    child = subprocess.Popen(["sleep", "1000"], stdout=subprocess.PIPE)
    reader = gevent.spawn(child.stdout.read)
    inside(child.stdout)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        child.__exit__(None, None, None)
    assert child.poll() is None and not child.stdout.closed
    child.kill()
    child.__exit__(None, None, None)
    assert (reader.get(timeout=30), child.returncode) == (b"", -9)


@pytest.mark.ours
def test_a_reader_that_is_killed():
    child = subprocess.Popen(["sleep", "1000"], stdout=subprocess.PIPE)
    reader = gevent.spawn(child.stdout.read)
    inside(child.stdout)
    leaving = gevent.spawn(child.__exit__, None, None, None)
    gevent.sleep(0)
    reader.kill()
    while not child.stdout.closed:
        gevent.sleep(0.001)
    child.kill()
    leaving.get(timeout=30)


def pipe(mode, **settings):
    r, w = os.pipe()
    if "r" in mode:
        return fileobject.FileObject(r, mode, **settings), w
    return fileobject.FileObject(w, mode, **settings), r


@pytest.mark.ours
@pytest.mark.parametrize("mode", ["rb", "r"])
def test_a_close_that_is_refused_changes_nothing(mode):
    file, other = pipe(mode)
    reader = gevent.spawn(file.read)
    inside(file)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="reentrant"):
            file.close()
        assert not file.closed and file.readable()
    os.write(other, b"abc")
    gevent.sleep(0)
    os.close(other)
    assert reader.get(timeout=30) == ("abc" if mode == "r" else b"abc")
    number = file.fileno()
    file.close()
    assert file.closed
    with pytest.raises(OSError):
        os.fstat(number)


@pytest.mark.ours
def test_a_close_that_is_refused_to_a_writer():
    file, other = pipe("wb")
    data = os.urandom(1_000_000)
    writer = gevent.spawn(file.write, data)
    inside(file)
    with pytest.raises(RuntimeError, match="reentrant"):
        file.close()
    with fileobject.FileObject(other, "rb") as reading:
        reader = gevent.spawn(reading.read)
        assert writer.get(timeout=30) == len(data)
        file.close()
        assert reader.get(timeout=30) == data


def test_a_raw_close_ends_the_wait():
    file, other = pipe("rb", buffering=0)
    number = file.fileno()
    reader = gevent.spawn(file.read, 1)
    gevent.sleep(0.01)
    file.close()
    assert file.closed
    with pytest.raises(cancel_wait_ex):
        reader.get(timeout=30)
    with pytest.raises(OSError):
        os.fstat(number)
    os.close(other)


def test_a_flush_that_fails_closes_all_the_same():
    file, other = pipe("wb")
    file.io.write(b"abc")
    number = file.fileno()
    os.close(other)
    with pytest.raises(BrokenPipeError):
        file.close()
    assert file.closed
    with pytest.raises(OSError):
        os.fstat(number)


@pytest.mark.ours
def test_an_exception_in_preexec_fn():
    def fails():
        raise ValueError

    with pytest.raises(subprocess.SubprocessError, match="preexec_fn"):
        subprocess.Popen(["true"], preexec_fn=fails)
