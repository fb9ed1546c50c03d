"""What every Python test runs under: a time limit each, stacks at a hang, the loop in the header.

The limit and its method stand in pyproject.toml (pytest-timeout, `thread`: a watchdog thread that
prints every stack and ends the process, since a hang in native code answers to no signal). Bodies
here also pass on upstream gevent (`make oracle`) unless they carry the mark `ours`.
"""

import contextlib
import faulthandler
import importlib.util
import os
import sys

import pytest

import gevent


def pytest_configure(config):
    faulthandler.enable()
    scale = float(os.environ.get("TIME_SCALE") or 1)
    if scale != 1:
        config.option.timeout = float(config.getini("timeout")) * scale


def pytest_report_header():
    loop = os.environ.get("GEVENT_LOOP") or "auto"
    version = getattr(gevent, "__version__", "?")
    return f"gevent {version} (GEVENT_LOOP={loop}) from {os.path.dirname(gevent.__file__)}"


def pytest_collection_modifyitems(items):
    if importlib.util.find_spec("gevent._core") is not None:
        return
    upstream = pytest.mark.skip(reason="what only this project offers")
    for item in items:
        if item.get_closest_marker("ours"):
            item.add_marker(upstream)


@pytest.fixture
def loop_name():
    """The loop that this run asked for, or what `auto` means here."""
    return os.environ.get("GEVENT_LOOP") or ("epoll" if sys.platform == "linux" else "kqueue")


@pytest.fixture
def quiet():
    """The hub prints no traceback of what nobody has caught."""
    hub = gevent.get_hub()
    hub.exception_stream = None
    yield
    # Not what it was: that is the standard error of this test.
    del hub.exception_stream


@pytest.fixture(params=["stock", "subclass"])
def serve(request):
    """Starts a `WSGIServer` of the given application, in this way."""
    from http_client import serving
    from pywsgi_ways import WAYS

    from gevent.pywsgi import WSGIServer

    with contextlib.ExitStack() as stack:
        yield lambda application, **settings: stack.enter_context(
            serving(application, WSGIServer, **{**WAYS[request.param], **settings})
        )
