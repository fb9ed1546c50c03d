"""Settings: assignment, environment, the names of loops."""

import subprocess
import sys
import textwrap
import warnings

import pytest

from gevent import _config


def run(code, **environment):
    """What *code* prints in a new interpreter with these variables set."""
    import os

    env = {k: v for k, v in os.environ.items() if not k.startswith("GEVENT")}
    env.update(environment)
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_assignment_beats_environment_beats_default(monkeypatch):
    setting = _config.MaxBlockingTime()
    assert setting.get() == 0.1
    monkeypatch.setenv("GEVENT_MAX_BLOCKING_TIME", "0.5")
    assert setting.get() == 0.1  # Was looked at before.
    assert _config.MaxBlockingTime().get() == 0.5
    setting.set("0.25")
    assert setting.get() == 0.25


@pytest.mark.parametrize(
    "text, value", [("10", 10), ("2kb", 2048), ("3MB", 3 << 20), ("1gb", 1 << 30), (None, None)]
)
def test_byte_counts(text, value):
    setting = _config.MonitorMemoryMaxUsage()
    setting.set(text)
    assert setting.get() == value


@pytest.mark.parametrize("kind", [_config.MaxBlockingTime, _config.MonitorMemoryMaxUsage])
def test_values_must_be_positive(kind):
    with pytest.raises(ValueError, match="Must be positive"):
        kind().set(-1)


def test_servers_are_a_list(monkeypatch):
    monkeypatch.setenv("GEVENT_RESOLVER_NAMESERVERS", "127.0.0.1,10.0.0.1")
    setting = _config.ResolverNameservers()
    assert setting.get() == ["127.0.0.1", "10.0.0.1"]
    assert setting.kwarg_name == "servers"
    assert _config.AresUDPPort().kwarg_name == "udp_port"
    assert _config.ResolverTimeout().kwarg_name == "timeout"


def test_help_names_every_variable(capsys):
    _config.config.print_help()
    printed = capsys.readouterr().out
    assert {setting.environment_key for setting in _config.ALL_SETTINGS} <= set(
        printed.replace("`", " ").split()
    )


@pytest.mark.ours
def test_upstreams_loops_are_options_that_cannot_be_had():
    options = _config.Loop().get_options()
    for name in ("libev-cext", "libev-cffi", "libuv-cffi", "libuv"):
        assert isinstance(options[name], ImportError)
    assert isinstance(options["epoll"], type)


@pytest.mark.ours
@pytest.mark.parametrize(
    "loop, backend, preference",
    [
        (None, None, ("auto",)),
        ("epoll", None, ("epoll",)),
        ("uring,epoll", None, ("uring", "epoll")),
        (" kqueue , auto ", None, ("kqueue", "auto")),
        ("libev-cext", None, ("auto",)),
        ("libuv,libev-cffi", None, ("auto", "auto")),
        ("default", "epoll", ("epoll",)),
        ("uring", "epoll", ("uring",)),
        (None, "uring,epoll", ("uring", "epoll")),
        (None, "libev", ("auto",)),
    ],
)
def test_loop_preference(monkeypatch, loop, backend, preference):
    for key, value in (("GEVENT_LOOP", loop), ("GEVENT_BACKEND", backend)):
        if value is None:
            monkeypatch.delenv(key, raising=False)
        else:
            monkeypatch.setenv(key, value)
    monkeypatch.setattr(_config, "config", _config.Config())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _config.loop_preference() == preference


@pytest.mark.ours
@pytest.mark.parametrize("name", ["epoll", "uring"])
@pytest.mark.parametrize("backend", ["select", "poll", "noenv,select"])
def test_portable_backends_of_libev_mean_the_loop(name, backend):
    import gevent.core

    if name not in gevent.core.supported_backends():
        pytest.skip(f"this machine refuses {name}")
    code = "import gevent; loop = gevent.get_hub().loop; print(loop.name, loop.backend)"
    done = run(code, GEVENT_LOOP=name, GEVENT_BACKEND=backend, PYTHONWARNINGS="error")
    assert done.stdout.split() == [name, backend.split(",")[-1]], done.stderr


@pytest.mark.ours
def test_a_backend_that_nobody_knows_is_refused():
    done = run("import gevent; gevent.get_hub()", GEVENT_BACKEND="nonsense")
    assert "ValueError: Invalid backend or flag: 'nonsense'" in done.stderr


@pytest.mark.ours
def test_a_loop_of_ones_own_is_taken_as_it_is():
    class Mine:
        pass

    setting = _config.Loop()
    setting.set(Mine)
    assert setting.get() is Mine
    assert setting.preference == ("auto",)
    setting.set("collections.OrderedDict")
    assert setting.get().__name__ == "OrderedDict"
    with pytest.raises(ImportError):
        setting.set("no-such-loop")


@pytest.mark.ours
@pytest.mark.parametrize("name", ["epoll", "uring"])
def test_environment_chooses_the_loop(name):
    import gevent.core

    if name not in gevent.core.supported_backends():
        pytest.skip(f"this machine refuses {name}")
    done = run("import gevent; print(gevent.get_hub().loop.backend)", GEVENT_LOOP=name)
    assert done.stdout.split() == [name], done.stderr


@pytest.mark.ours
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kqueue is the loop there")
def test_kqueue_on_linux_is_for_who_asks_for_it_alone():
    code = "import gevent; print(gevent.get_hub().loop.backend)"
    assert run(code, GEVENT_LOOP="kqueue,epoll").stdout.split() == ["epoll"]
    assert run(code, GEVENT_LOOP="kqueue,auto").stdout.split() == ["epoll"]
    assert run(code, GEVENT_LOOP="kqueue").stdout.split() == ["kqueue"]
    code = "import gevent.core; print(*gevent.core.supported_backends())"
    assert "kqueue" not in run(code, GEVENT_LOOP="kqueue").stdout.split()
