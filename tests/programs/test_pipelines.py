"""`subprocess` pipelines through which a gigabyte goes."""

import hashlib
import os
import subprocess
import sys
from subprocess import PIPE

import gevent


def test_bytes_through_a_pipeline(full, others):
    size = (1 << 30) if full else (128 << 20)
    source = subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=PIPE)
    middle = subprocess.Popen(["cat"], stdin=source.stdout, stdout=PIPE)
    last = subprocess.Popen(["cat"], stdin=middle.stdout, stdout=PIPE)
    source.stdout.close()
    middle.stdout.close()
    got = 0
    while part := last.stdout.read(1 << 18):
        got += len(part)
    last.stdout.close()
    assert got == size
    assert [child.wait() for child in (source, middle, last)] == [0, 0, 0]
    assert len(others) > 5


def test_bytes_through_this_process(full):
    """Written by one greenlet, read by another, with a child between; every byte is right."""
    size, part = (1 << 30) if full else (64 << 20), os.urandom(1 << 20)
    sent, came = hashlib.sha1(), hashlib.sha1()
    with subprocess.Popen(["cat"], stdin=PIPE, stdout=PIPE) as child:

        def write():
            for _ in range(size // len(part)):
                child.stdin.write(part)
                sent.update(part)
            child.stdin.close()

        writer = gevent.spawn(write)
        got = 0
        while data := child.stdout.read(1 << 18):
            came.update(data)
            got += len(data)
        writer.get()
    assert (got, came.digest()) == (size, sent.digest())


def test_communicate_a_lot(full):
    data = os.urandom(1 << 20) * (256 if full else 32)
    done = subprocess.run(["cat"], input=data, stdout=PIPE, check=True)
    assert done.stdout == data


def test_many_at_once():
    code = "import sys; sys.stdout.write(sys.stdin.read()[::-1])"

    def turn(n):
        done = subprocess.run(
            [sys.executable, "-S", "-E", "-c", code],
            input=f"{n}:abc",
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    turns = [gevent.spawn(turn, n) for n in range(40)]
    gevent.joinall(turns, raise_error=True)
    assert [g.value for g in turns] == [f"{n}:abc"[::-1] for n in range(40)]
