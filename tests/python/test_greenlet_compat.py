"""The standard library in greenlets that switch away in the middle of it."""

import asyncio
import ctypes
import faulthandler
import json
import os
import re
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import tracemalloc

import greenlet
import pytest
from greenlet import getcurrent


def collect(g, *args):
    """Runs a greenlet to its end; returns what it sent on the way, and its result."""
    sent = []
    value = g.switch(*args)
    while not g.dead:
        sent.append(value)
        value = g.switch()
    return sent, value


def test_callbacks_of_c_libraries():
    main = getcurrent()

    def work():
        con = sqlite3.connect(":memory:")
        con.create_function("f", 1, lambda v: (main.switch("sql"), v * 2)[1])
        con.execute("create table t(a)")
        con.executemany("insert into t values(?)", [(i,) for i in range(5)])
        total = con.execute("select sum(f(a)) from t").fetchone()[0]
        con.close()
        upper = re.sub("[a-z]", lambda m: (main.switch("re"), m[0].upper())[1], "abc1d")
        text = json.dumps([1, object], default=lambda o: (main.switch("json"), "O")[1])
        array = (ctypes.c_int * 4)(3, 1, 2, 0)
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int)
        )
        compare = kind(lambda a, b: (main.switch("qsort"), a[0] - b[0])[1])
        ctypes.CDLL(None).qsort(array, 4, 4, compare)
        return total, upper, text, list(array)

    several = [greenlet.greenlet(work) for _ in range(3)]
    values = [g.switch() for g in several]
    counts = [{} for _ in several]
    while not all(g.dead for g in several):
        for i, g in enumerate(several):
            if not g.dead:
                counts[i][values[i]] = counts[i].get(values[i], 0) + 1
                values[i] = g.switch()
    assert values == [(20, "ABC1D", '[1, "O"]', [0, 1, 2, 3])] * 3
    assert all(c["sql"] == 5 and c["re"] == 4 and c["json"] == 1 for c in counts)


def test_coroutines_are_driven_by_hand():
    main = getcurrent()

    class Yielding:
        def __await__(self):
            main.switch("awaited")
            return (yield "yielded")

    async def coroutine():
        return await Yielding()

    def drive():
        coro = coroutine()
        main.switch(coro.send(None))
        try:
            coro.send(7)
        except StopIteration as stop:
            return stop.value

    assert collect(greenlet.greenlet(drive)) == (["awaited", "yielded"], 7)


def test_asyncio_in_a_greenlet():
    main = getcurrent()

    async def body():
        await asyncio.sleep(0.001)
        main.switch("in the loop")
        await asyncio.sleep(0.001)
        return 5

    assert collect(greenlet.greenlet(lambda: asyncio.run(body()))) == (["in the loop"], 5)


def test_a_handshake_between_two():
    main = getcurrent()
    with tempfile.TemporaryDirectory() as folder:
        key, cert = os.path.join(folder, "key"), os.path.join(folder, "cert")
        try:
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key]
                + ["-out", cert, "-days", "1", "-subj", "/CN=localhost"],
                check=True,
                capture_output=True,
            )
        except FileNotFoundError:
            pytest.skip("no openssl")
        server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.load_cert_chain(cert, key)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(there, back, server_side=True)
    client = client_context.wrap_bio(back, there)

    def waiting(call, *args):
        while True:
            try:
                return call(*args)
            except ssl.SSLWantReadError:
                main.switch()

    def talk(side, data):
        waiting(side.do_handshake)
        side.write(data)
        return waiting(side.read, 100)

    pair = [greenlet.greenlet(talk), greenlet.greenlet(talk)]
    results = [pair[0].switch(server, b"server's"), pair[1].switch(client, b"client's")]
    while not all(g.dead for g in pair):
        for i, g in enumerate(pair):
            if not g.dead:
                results[i] = g.switch()
    assert results == [b"client's", b"server's"]


def test_a_switch_in_a_trace_function():
    main = getcurrent()
    turns = []

    def background():
        while True:
            turns.append(1)
            main.switch()

    other = greenlet.greenlet(background)

    def tracer(frame, event, arg):
        other.switch()
        return tracer

    def work():
        total = 0
        for i in range(20):
            total += i
        return total

    old = sys.gettrace()
    sys.settrace(tracer)
    try:
        result = work()
    finally:
        sys.settrace(old)
    assert result == 190
    assert len(turns) > 20


def test_tracemalloc_and_faulthandler():
    main = getcurrent()

    def work(file):
        kept = [bytearray(1000) for _ in range(10)]
        main.switch()
        faulthandler.dump_traceback(file, all_threads=False)
        kept += [bytearray(1000) for _ in range(10)]
        return kept

    tracemalloc.start(5)
    try:
        with tempfile.TemporaryFile("w+") as file:
            several = [greenlet.greenlet(work) for _ in range(20)]
            for g in several:
                g.switch(file)
            kept = [g.switch() for g in several]
            size = sum(s.size for s in tracemalloc.take_snapshot().statistics("lineno"))
            file.seek(0)
            dump = file.read()
    finally:
        tracemalloc.stop()
    assert len(kept) == 20
    assert size > 400_000
    assert dump.count("in work") == 20


def test_modules_are_imported_in_a_greenlet():
    names = (
        "xml.dom.minidom difflib tarfile urllib.request fractions statistics dataclasses".split()
    )
    script = f"import greenlet\nfor n in {names!r}: greenlet.greenlet(__import__).switch(n)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
