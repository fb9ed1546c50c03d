"""Patching: what is replaced and remembered, who is told; each in an interpreter of its own."""

import subprocess
import sys
import textwrap

import pytest


def run(code, *arguments, **kwargs):
    """The lines that *code* prints."""
    command = [sys.executable, *(arguments or ("-c", textwrap.dedent(code)))]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, **kwargs
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def test_everything_becomes_cooperative():
    assert run("""
        from gevent import monkey
        print(monkey.patch_all())
        import os, queue, select, selectors, signal, socket, ssl, subprocess
        import threading, time, _thread
        for thing in (time.sleep, socket.socket, socket.getaddrinfo, select.select, ssl.SSLContext,
                      subprocess.Popen, threading.Event, threading.Lock, threading.local,
                      _thread.start_new_thread, queue.Queue, queue.SimpleQueue, os.fork, os.waitpid,
                      signal.signal, selectors.DefaultSelector):
            print((thing.__module__ or "").partition(".")[0])
        print(hasattr(select, "epoll"))
    """) == ["True"] + ["gevent"] * 16 + ["False"]


def test_threads_are_greenlets():
    assert run("""
        from gevent import monkey
        monkey.patch_all()
        import threading, time
        order = []
        def work(n):
            time.sleep(0.01 * n)
            order.append(n)
        threads = [threading.Thread(target=work, args=(n,)) for n in (3, 1, 2)]
        for t in threads: t.start()
        print(threading.active_count())
        for t in threads: t.join()
        print(order, [t.is_alive() for t in threads], threading.active_count())
        import gevent
        with gevent.Timeout(0.05, False):
            threading.Condition().wait_for(lambda: False) if False else time.sleep(1)
        local = threading.local()
        local.x = 1
        t = threading.Thread(target=lambda: print(hasattr(local, "x"))); t.start(); t.join()
        print(threading.current_thread() is threading.main_thread())
        # At the end, the interpreter waits for this one.
        threading.Thread(target=lambda: (time.sleep(0.05), print("last"))).start()
    """) == ["4", "[1, 2, 3] [False, False, False] 1", "False", "True", "last"]


def test_joining_the_main_thread():
    assert run("""
        from gevent import monkey
        monkey.patch_all()
        import threading
        def wait():
            threading.main_thread().join()
            print("main is over")
        threading.Thread(target=wait).start()
        print("end of main")
    """) == ["end of main", "main is over"]


def test_native_thread_from_before():
    assert run("""
        import threading, time
        stop = []
        def work():
            while not stop: sleep(0.001)
        sleep = time.sleep
        native = threading.Thread(target=work)
        native.start()
        from gevent import monkey
        monkey.patch_all()
        native.join(0.02)
        print(native.is_alive(), threading.current_thread().name)
        stop.append(1)
        native.join()
        print(native.is_alive())
    """) == ["True MainThread", "False"]


def test_locks_held_while_patching():
    assert run("""
        import threading, logging, io
        logging.basicConfig(stream=io.StringIO())
        lock = threading._PyRLock() if hasattr(threading, "_PyRLock") else threading._RLock()
        with lock:
            from gevent import monkey
            monkey.patch_all()
        print(lock._is_owned())
        import gevent
        handler = logging.getLogger().handlers[0]
        with handler.lock:
            g = gevent.spawn(logging.warning, "x")
            gevent.sleep(0.01)
            print(g.ready())
        g.get(timeout=30)
        print(handler.stream.getvalue().strip())
    """) == ["False", "False", "WARNING:root:x"]


def test_originals():
    assert run("""
        import time, socket
        sleep, sock = time.sleep, socket.socket
        from gevent import monkey
        print(monkey.is_module_patched("time"), monkey.is_object_patched("time", "sleep"))
        print(monkey.get_original("time", "sleep") is sleep)
        monkey.patch_time()
        monkey.patch_time()
        monkey.patch_socket(dns=False)
        print(monkey.is_module_patched("time"), monkey.is_object_patched("time", "sleep"))
        print(monkey.get_original("time", "sleep") is sleep, time.sleep is sleep)
        print(monkey.get_original("socket", ["socket", "AF_INET"]) == [sock, socket.AF_INET])
        print(monkey.is_object_patched("socket", "getaddrinfo"), monkey.saved["time"])
        try:
            monkey.get_original("no_such_module", "x")
        except ImportError:
            print("ImportError")
        print(monkey.get_original(("no_such_module", "time"), "sleep") is sleep)
    """) == [
        "False False",
        "True",
        "True True",
        "True False",
        "True",
        "False {'sleep': <built-in function sleep>}",
        "ImportError",
        "True",
    ]


def test_second_call_adds():
    assert run("""
        import warnings
        warnings.simplefilter("always")
        from gevent import monkey
        with warnings.catch_warnings(record=True) as seen:
            print(monkey.patch_all(thread=False, time=False, ssl=False))
            print(monkey.patch_all(thread=False, time=False, ssl=False))
            print(len(seen), monkey.is_module_patched("time"))
            print(monkey.patch_all())
            print(monkey.is_module_patched("time"), monkey.is_module_patched("threading"))
            print(monkey.patch_all(os=False), monkey.is_module_patched("os"))
            for warning in seen: print(warning.category.__name__, str(warning.message)[:24])
    """) == [
        "True",
        "None",
        "0 False",
        "True",
        "True True",
        "None True",
        "MonkeyPatchWarning Patching more than once ",
        "MonkeyPatchWarning Patching more than once ",
    ]


def test_signal_without_os_warns():
    assert run("""
        import warnings
        warnings.simplefilter("always")
        from gevent import monkey, events
        events.subscribers.append(
            lambda event: isinstance(event, events.GeventWillPatchAllEvent)
            and monkey._subscribe_signal_os(event))
        with warnings.catch_warnings(record=True) as seen:
            monkey.patch_all(os=False)
        print(any("Patching signal but not os" in str(w.message) for w in seen))
    """) == ["True"]


def test_events_and_vetoes():
    assert run("""
        from gevent import monkey, events
        seen = []
        def listen(event):
            seen.append(event)
            if isinstance(event, events.GeventWillPatchModuleEvent) and event.module_name == "ssl":
                raise events.DoNotPatch
        events.subscribers.append(listen)
        print(monkey.patch_all(mine=42))
        print(type(seen[0]).__name__, seen[0].patch_all_kwargs, seen[0].will_patch_module("ssl"))
        print(type(seen[-2]).__name__, type(seen[-1]).__name__)
        print(monkey.is_module_patched("ssl"), monkey.is_module_patched("socket"))
        did = [e.module_name for e in seen if isinstance(e, events.GeventDidPatchModuleEvent)]
        print("ssl" in did, "socket" in did, "threading" in did)
    """) == [
        "True",
        "GeventWillPatchAllEvent {'mine': 42} True",
        "GeventDidPatchBuiltinModulesEvent GeventDidPatchAllEvent",
        "False True",
        "False True True",
    ]


def test_veto_of_all():
    assert run("""
        from gevent import monkey, events
        def listen(event):
            raise events.DoNotPatch
        events.subscribers.append(listen)
        print(monkey.patch_all(), monkey.patch_time(), monkey.is_module_patched("time"))
    """) == ["False None False"]


def test_patch_module_of_others():
    assert run("""
        import types
        from gevent import monkey
        target, source = types.ModuleType("target"), types.ModuleType("source")
        target.a, target.b, source.a = 1, 2, 10
        try:
            monkey.patch_module(target, source)
        except AttributeError as ex:
            print("bad or missing" in str(ex))
        source.__implements__ = ["a"]
        source._gevent_will_monkey_patch = lambda t, items, warn: print("will", items)
        source._gevent_did_monkey_patch = lambda t, items, warn: print("did", t.a)
        print(monkey.patch_module(target, source), target.a, target.b)
        print(monkey.saved["target"])
    """) == ["True", "will ['a']", "did 10", "True 10 2", "{'a': 1}"]


def test_no_hub_is_made():
    assert run("""
        from gevent import monkey
        monkey.patch_all()
        from gevent._hub_local import get_hub_if_exists
        print(get_hub_if_exists())
    """) == ["None"]


def test_queue_can_be_left_alone(monkeypatch):
    monkeypatch.setenv("GEVENT_MONKEY_DISABLE_QUEUE_QUEUE", "1")
    assert run("""
        from gevent import monkey
        monkey.patch_all()
        import queue
        print(queue.Queue.__module__, queue.LifoQueue.__module__.partition(".")[0])
    """) == ["queue gevent"]


@pytest.mark.parametrize("how", ["script", "module", "package"])
def test_run_a_program(tmp_path, how, monkeypatch):
    (tmp_path / "prog").mkdir()
    text = textwrap.dedent("""
        import sys, time, threading
        print(__name__, sys.argv[1:], time.sleep.__module__ != "time")
        print(threading.current_thread().name)
    """)
    (tmp_path / "prog" / "__main__.py").write_text(text)
    (tmp_path / "script.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    target = {"script": ["script.py"], "module": ["--module", "prog"], "package": ["prog"]}[how]
    assert run(None, "-m", "gevent.monkey", *target, "an", "--argument") == [
        "__main__ ['an', '--argument'] True",
        "MainThread",
    ]


@pytest.mark.ours  # upstream patches all the same
def test_run_with_options(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("""
from gevent import monkey
print([n for n in ("time", "socket", "select") if monkey.is_module_patched(n)])
""")
    assert run(None, "-m", "gevent.monkey", "--time", str(script)) == ["['time']"]
    assert run(None, "-m", "gevent.monkey", "--no-socket", str(script)) == ["['time', 'select']"]
    assert "USAGE" in "\n".join(run(None, "-m", "gevent.monkey"))
    bad = subprocess.run(
        [sys.executable, "-m", "gevent.monkey", "--nonsense", "x"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert bad.returncode == 1
    assert "Cannot patch '--nonsense'" in bad.stderr or "Cannot patch" in bad.stderr


def test_urllib_against_a_socket_server():
    assert run("""
        from gevent import monkey
        monkey.patch_all()
        import gevent, socket, urllib.request

        def handle(conn):
            try:
                conn.recv(1024)
                conn.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 11\\r\\n\\r\\nHello World")
            finally:
                conn.close()

        def serve(listener):
            while True:
                conn, _ = listener.accept()
                gevent.spawn(handle, conn)

        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(100)
        gevent.spawn(serve, listener)
        url = "http://127.0.0.1:%d/" % listener.getsockname()[1]
        fetchers = [gevent.spawn(lambda: urllib.request.urlopen(url).read()) for _ in range(50)]
        gevent.joinall(fetchers, timeout=20)
        print({f.value for f in fetchers})
    """) == ["{b'Hello World'}"]
