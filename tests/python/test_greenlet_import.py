"""Which greenlet an ``import greenlet`` finds, in whatever order things are imported."""

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import greenlet
import pytest

pytestmark = pytest.mark.ours

ROOT = Path(__file__).resolve().parents[2]
FINDER = ROOT / "python" / "wheel-data" / "purelib"
PACKAGE = Path(greenlet.__file__).resolve().parents[2]
MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"


def real_greenlet():
    """A folder with the real greenlet for this Python, if a test run has fetched it."""
    folder = ROOT / ".cache" / "greenlet-suite" / MINOR / "wheel"
    return folder if list(folder.glob("greenlet/_greenlet*.so")) else None


def run(source, *path):
    done = subprocess.run(
        [sys.executable, "-S", "-c", textwrap.dedent(source)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(p) for p in path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_public_names():
    from greenlet import _greenlet

    assert greenlet.__version__ == "3.5.6"
    for name in greenlet.__all__:
        assert hasattr(greenlet, name)
    assert greenlet.greenlet is _greenlet.greenlet
    assert greenlet.greenlet.__module__ == "greenlet"
    assert greenlet.greenlet.getcurrent is greenlet.getcurrent
    assert greenlet.greenlet.GreenletExit is greenlet.GreenletExit
    assert issubclass(greenlet.GreenletExit, BaseException)
    assert not issubclass(greenlet.GreenletExit, Exception)
    assert issubclass(greenlet.error, Exception)
    assert repr(greenlet._C_API).startswith('<capsule object "greenlet._C_API"')
    with pytest.raises(TypeError):
        greenlet.greenlet.switch = None


def test_greenlet_first_loads_no_more_of_gevent():
    out = run(
        """
        import _gevent_greenlet_finder
        import greenlet
        import sys
        print(greenlet.__file__, 'gevent' in sys.modules)
        import greenlet._greenlet
        from gevent import _greenlet
        print(_greenlet is greenlet, sys.modules['gevent._core'].greenlet_module
              is greenlet._greenlet)
        """,
        FINDER,
        PACKAGE,
        *[p for p in sys.path if p and "site-packages" in p],
        *filter(None, [os.environ.get("PYTHONPATH")]),
    )
    assert out[0].endswith("gevent/_greenlet/__init__.py")
    assert out[1:] == ["False", "True", "True"]


def test_the_finder_loads_nothing_and_is_installed_once():
    out = run(
        """
        import sys
        before = set(sys.modules)
        import _gevent_greenlet_finder
        print(*set(sys.modules) - before)
        del sys.modules['_gevent_greenlet_finder']
        print([f.__name__ for f in sys.meta_path if isinstance(f, type)].count('Finder'))
        """,
        FINDER,
    )
    assert out == ["_gevent_greenlet_finder", "1"]


def test_without_gevent_the_finder_steps_aside():
    out = run(
        """
        import _gevent_greenlet_finder
        try:
            import greenlet
        except ImportError:
            print('none')
        """,
        FINDER,
    )
    assert out == ["none"]


def test_a_real_greenlet_that_was_first_refuses_to_work():
    folder = real_greenlet()
    if folder is None:
        pytest.skip("tests/greenlet_suite.py has not fetched the real greenlet")
    out = run(
        f"""
        import greenlet as real
        parked = real.greenlet(lambda: real.getcurrent().parent.switch())
        parked.switch()
        import sys
        spec = __import__('importlib.util').util.spec_from_file_location(
            'gevent._greenlet', {greenlet.__file__!r})
        ours = __import__('importlib.util').util.module_from_spec(spec)
        sys.modules['gevent._greenlet'] = ours
        spec.loader.exec_module(ours)
        for call in (parked.switch, parked.throw, lambda: real.greenlet(print)):
            try:
                call()
            except RuntimeError as error:
                print('import gevent first' in str(error).replace(chr(10), ' '))
        print(ours.greenlet(lambda: 'ours-works').switch())
        import greenlet
        print(greenlet is ours)
        """,
        folder,
    )
    assert [w for w in out if w in ("True", "False", "ours-works")] == [
        "True",
        "True",
        "True",
        "ours-works",
        "True",
    ]


def test_the_package_is_not_found_twice():
    assert sys.modules["gevent._greenlet"] is sys.modules["greenlet"]
    spec = importlib.util.find_spec("greenlet")
    assert spec.origin == greenlet.__file__
