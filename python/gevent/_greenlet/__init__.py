"""The package ``greenlet``, as this project provides it.

It answers to three names: ``greenlet`` and ``gevent._greenlet`` are this module, and
``greenlet._greenlet`` is the native one inside ``gevent._core``. Whichever is asked for first, the
others follow, and the rest of gevent is not imported for it. The start-up hook that lets
``import greenlet`` come here before gevent was imported is ``_gevent_greenlet_finder``.
"""

import os
import sys


def _load_core():
    """The native module: ``gevent._core``, loaded by itself unless gevent is being imported."""
    if "gevent._core" in sys.modules:
        return sys.modules["gevent._core"]
    if "gevent" in sys.modules:
        from gevent import _core  # noqa: PLC0415

        return _core
    from importlib import machinery, util  # noqa: PLC0415

    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    spec = machinery.PathFinder.find_spec("gevent._core", [package])
    if spec is None:
        raise ImportError(f"there is no gevent._core in {package}", name="gevent._core")
    core = util.module_from_spec(spec)
    sys.modules["gevent._core"] = core
    try:
        spec.loader.exec_module(core)
    except BaseException:
        del sys.modules["gevent._core"]
        raise
    return core


_greenlet = _load_core().greenlet_module

# The version of greenlet whose behaviour this is.
__version__ = "3.5.6"

_C_API = _greenlet._C_API
CLOCKS_PER_SEC = _greenlet.CLOCKS_PER_SEC
GREENLET_USE_CONTEXT_VARS = _greenlet.GREENLET_USE_CONTEXT_VARS
GREENLET_USE_GC = _greenlet.GREENLET_USE_GC
GREENLET_USE_TRACING = _greenlet.GREENLET_USE_TRACING
GreenletExit = _greenlet.GreenletExit
enable_optional_cleanup = _greenlet.enable_optional_cleanup
error = _greenlet.error
get_clocks_used_doing_optional_cleanup = _greenlet.get_clocks_used_doing_optional_cleanup
getcurrent = _greenlet.getcurrent
gettrace = _greenlet.gettrace
greenlet = _greenlet.greenlet
settrace = _greenlet.settrace

__all__ = [
    "_C_API",
    "GreenletExit",
    "__version__",
    "error",
    "getcurrent",
    "gettrace",
    "greenlet",
    "settrace",
]

sys.modules["greenlet._greenlet"] = _greenlet
sys.modules["greenlet"] = sys.modules["gevent._greenlet"] = sys.modules[__name__]
