"""A Celery worker with ``-P gevent`` on Redis: ten thousand tasks, each done once and rightly."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys

import pytest

import gevent

pytest.importorskip("celery")

HERE = pathlib.Path(__file__).parent


@contextlib.contextmanager
def worker(log):
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "-P", "gevent"]
    command += ["-c", "100", "--without-mingle", "--without-gossip", "-l", "INFO"]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, cwd=HERE, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_tasks(redis_url, full, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))
    from celery_app import add, add_up, app, client, fails_once

    count, prefix = 10_000 if full else 1_000, f"{os.getpid()}:"
    app.control.purge()
    with worker(tmp_path / "log") as process:
        try:
            assert fails_once.delay("x").get(timeout=60) == 1
            results = [add.delay(n, 1) for n in range(100)]
            assert [result.get(timeout=60) for result in results] == list(range(1, 101))
            for n in range(count):
                add_up.delay(prefix, n)
            while int(client.get(prefix + "count") or 0) < count:
                gevent.sleep(0.02)
        except BaseException:
            print(os.fsdecode((tmp_path / "log").read_bytes()[-4000:]), process.poll())
            raise
        gevent.sleep(0.1)
        assert int(client.get(prefix + "count")) == count
        assert int(client.get(prefix + "sum")) == count * (count - 1) // 2
    assert b"concurrency: 100 (gevent)" in (tmp_path / "log").read_bytes()
