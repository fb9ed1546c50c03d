"""Every GEVENT_* variable has its effect. (Which loop is chosen is the subject of test_config.)"""

import os
import subprocess
import sys
import textwrap

import pytest

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
CERTIFICATE, KEY = (os.path.join(DATA, "localhost." + kind) for kind in ("crt", "key"))

CASES = {
    "a resolver": (
        {"GEVENT_RESOLVER": "block"},
        """
        from gevent.resolver.blocking import Resolver
        assert type(gevent.get_hub().resolver) is Resolver
        """,
    ),
    "a list of resolvers": (
        {"GEVENT_RESOLVER": "nothing.of.this.name,thread"},
        """
        from gevent.resolver.thread import Resolver
        assert type(gevent.get_hub().resolver) is Resolver
        """,
    ),
    "a resolver's servers": (
        {"GEVENT_RESOLVER_NAMESERVERS": "127.0.0.1,::1", "GEVENT_RESOLVER_TIMEOUT": "2.5"},
        """
        assert gevent.config.resolver_nameservers == ["127.0.0.1", "::1"]
        assert gevent.config.resolver_timeout == 2.5
        """,
    ),
    "c-ares's settings": (
        {
            "GEVENTARES_FLAGS": "4",
            "GEVENTARES_TIMEOUT": "1.5",
            "GEVENTARES_TRIES": "7",
            "GEVENTARES_NDOTS": "2",
            "GEVENTARES_UDP_PORT": "5353",
            "GEVENTARES_TCP_PORT": "5354",
            "GEVENTARES_SERVERS": "10.0.0.1",
        },
        """
        config = gevent.config
        assert str(config.ares_flags) == "4" and float(config.ares_timeout) == 1.5
        assert int(config.ares_tries) == 7 and int(config.ares_ndots) == 2
        assert int(config.ares_udp_port) == 5353 and int(config.ares_tcp_port) == 5354
        assert "10.0.0.1" in config.ares_servers
        """,
    ),
    "a thread pool": (
        {"GEVENT_THREADPOOL": "collections.OrderedDict"},
        """
        import collections
        assert gevent.get_hub().threadpool_class is collections.OrderedDict
        """,
    ),
    "how long its threads wait": (
        {"GEVENT_THREADPOOL_IDLE_TASK_TIMEOUT": "0.01"},
        """
        pool = gevent.get_hub().threadpool
        assert pool.apply(abs, (-1,)) == 1 and pool.size == 1
        with gevent.Timeout(20):
            while pool.size:
                gevent.sleep(0.01)
        """,
    ),
    "a file class": (
        {"GEVENT_FILE": "thread"},
        """
        from gevent import fileobject
        assert fileobject.FileObject is fileobject.FileObjectThread
        """,
    ),
    "files that block": (
        {"GEVENT_FILE": "block"},
        """
        from gevent import fileobject
        assert fileobject.FileObject is fileobject.FileObjectBlock
        """,
    ),
    "no waitpid": (
        {"GEVENT_NOWAITPID": "1"},
        """
        import os
        from gevent import os as gos
        assert "waitpid" not in gos.__implements__
        """,
    ),
    "the usual waitpid": (
        {},
        """
        from gevent import os as gos
        assert "waitpid" in gos.__implements__
        """,
    ),
    "how contexts are shown": (
        {"GEVENT_FORMAT_CONTEXT": "builtins.ascii"},
        "assert gevent.get_hub().format_context is ascii",
    ),
    "no tree of greenlets": (
        {"GEVENT_TRACK_GREENLET_TREE": "false"},
        """
        g = gevent.spawn(abs, 1)
        assert g.spawning_greenlet is None and not g.spawning_stack
        """,
    ),
    "a tree of greenlets": (
        {},
        """
        g = gevent.spawn(abs, 1)
        assert g.spawning_greenlet() is gevent.getcurrent() and g.spawning_stack
        """,
    ),
    "pure Python": (
        {"GEVENT_PURE_PYTHON": "1"},
        "from gevent._compat import PURE_PYTHON; assert PURE_PYTHON",
    ),
    "traces of memory": (
        {"PYTHONTRACEMALLOC": "1"},
        """
        import tracemalloc
        assert gevent.config.trace_malloc and tracemalloc.is_tracing()
        """,
    ),
    "no traces of memory": ({}, "assert not gevent.config.trace_malloc"),
    "an unpatched Queue": (
        {"GEVENT_MONKEY_DISABLE_QUEUE_QUEUE": "1"},
        """
        import queue
        old = queue.SimpleQueue, queue.Queue
        from gevent import monkey
        monkey.patch_all()
        assert queue.SimpleQueue is not old[0] and queue.Queue is old[1]
        """,
    ),
    "a limit of memory": (
        {"GEVENT_MONITOR_MEMORY_MAX": "1kb", "GEVENT_MONITOR_MEMORY_PERIOD": "2"},
        """
        assert gevent.config.max_memory_usage == 1024
        assert gevent.config.memory_monitor_period == 2
        """,
    ),
}


def run(variables, code):
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("GEVENT", "PYTHONTRACEMALLOC")) or name == "GEVENT_LOOP"
    }
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "import gevent\n" + textwrap.dedent(code)],
        env={**env, **variables},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )


@pytest.mark.parametrize("name", CASES)
def test_variable(name):
    done = run(*CASES[name])
    assert done.returncode == 0, done.stderr


SERVES = """
from gevent.pywsgi import WSGIServer
server = WSGIServer(("127.0.0.1", 0), print, log=None, {more})
server.start()
server.stop()
"""

#: Variables of ours: what they take, what they do not, and where that is noticed.
REFUSED = {
    "GEVENT_STACK_SIZE": (
        ["131072", " 256K", "64m", ""],
        ["8MB", "4G", "abc", "2048", "127k", "65m", "0", "-1", "1.5m", "k", "9" * 30],
        "",
    ),
    "GEVENT_FORK_KILL": (
        ["1", "true", "On", "yes", "0", "false", "off", "no", ""],
        ["2", "maybe", "-"],
        "import gevent.os",
    ),
    "GEVENT_PYWSGI_HTTP": (
        ["strict", "tolerant", "upstream", ""],
        ["lax", "Strict", "1"],
        SERVES.format(more=""),
    ),
    "GEVENT_PYWSGI_PATH": (
        ["python", "native", ""],
        ["rust", "0"],
        SERVES.format(more=""),
    ),
    "GEVENT_PYWSGI_TLS": (
        ["openssl", "rustls", ""],
        ["OpenSSL", "none"],
        SERVES.format(more="**tls").replace(
            "server =", f"tls = dict(certfile={CERTIFICATE!r}, keyfile={KEY!r})\nserver ="
        ),
    ),
}


@pytest.mark.ours
@pytest.mark.parametrize("variable", REFUSED)
def test_a_value_that_a_variable_does_not_take(variable):
    taken, refused, code = REFUSED[variable]
    for value in taken:
        done = run({variable: value}, code)
        assert done.returncode == 0, (value, done.stderr)
    for value in refused:
        done = run({variable: value}, code)
        assert done.returncode == 1, value
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("ValueError: " + variable + "="), (value, last)
        assert value in last
        assert "it takes" in last


BLOCKS = """
import time
gevent.sleep(0.01)
assert gevent.get_hub().periodic_monitoring_thread is not None
time.sleep(1)
gevent.sleep(0.01)
"""


def test_blocking_is_reported():
    variables = {"GEVENT_MONITOR_THREAD_ENABLE": "1", "GEVENT_MAX_BLOCKING_TIME": "0.1"}
    done = run(variables, BLOCKS)
    assert done.returncode == 0, done.stderr
    assert "appears to be blocked" in done.stderr and "time.sleep(1)" in done.stderr.replace(
        "<string>", "time.sleep(1)"
    )
    assert done.stderr.count("appears to be blocked") < 20


def test_blocking_may_go_without_a_report():
    variables = {
        "GEVENT_MONITOR_THREAD_ENABLE": "1",
        "GEVENT_MAX_BLOCKING_TIME": "0.1",
        "GEVENT_MONITOR_PRINT_BLOCKING_REPORTS": "0",
    }
    done = run(variables, BLOCKS)
    assert done.returncode == 0 and "appears to be blocked" not in done.stderr


def test_no_monitor_without_the_variable():
    done = run({}, "assert gevent.get_hub().periodic_monitoring_thread is None")
    assert done.returncode == 0, done.stderr


def test_no_report_of_what_does_not_block():
    variables = {"GEVENT_MONITOR_THREAD_ENABLE": "1", "GEVENT_MAX_BLOCKING_TIME": "2"}
    code = """
    def loops():
        for _ in range(60):
            gevent.sleep(0.005)
    gevent.joinall([gevent.spawn(loops) for _ in range(3)])
    """
    done = run(variables, code)
    assert done.returncode == 0 and not done.stderr
