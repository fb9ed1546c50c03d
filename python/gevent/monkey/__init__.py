"""Making the standard library cooperative, in place.

::

    from gevent import monkey
    monkey.patch_all()

as the first lines of a program, before it imports anything else and while it has one thread, makes
:mod:`socket`, :mod:`ssl`, :mod:`threading`, :mod:`time`, :mod:`subprocess` and the like block one
greenlet instead of all. Each ``patch_*`` function does its part alone. Patching twice is
harmless, and nothing is ever unpatched.

:func:`is_module_patched`, :func:`is_object_patched` and :func:`get_original` tell what has been
done. Events of :mod:`gevent.events` announce each step, to subscribers and to entry points of other
packages, which may object (:exc:`gevent.events.DoNotPatch`) or patch more (:func:`patch_module`).

``python -m gevent.monkey program.py`` runs a program patched.
"""

# Whatever is imported here at the top is imported before it can be patched.
import sys

from ._errors import MonkeyPatchWarning, _BadImplements
from ._state import is_anything_patched, is_module_patched, is_object_patched, saved
from ._util import (
    _check_availability,
    _ignores_DoNotPatch,
    _notify_patch,
    _patch_module,
    _process_warnings,
    _queue_warning,
)
from .api import get_original, patch_item, patch_module, remove_item

__all__ = [
    "MonkeyPatchWarning",
    "get_original",
    "is_module_patched",
    "is_object_patched",
    "main",
    "patch_all",
    "patch_builtins",
    "patch_dns",
    "patch_module",
    "patch_os",
    "patch_queue",
    "patch_select",
    "patch_signal",
    "patch_socket",
    "patch_ssl",
    "patch_subprocess",
    "patch_sys",
    "patch_thread",
    "patch_time",
]

WIN = sys.platform.startswith("win")
PY314 = sys.version_info[:2] >= (3, 14)


def __getattr__(name):
    if name == "main":
        from ._main import main

        return main
    raise AttributeError(name)


@_ignores_DoNotPatch
def patch_sys(stdin=True, stdout=True, stderr=True):
    """Does nothing: the interpreter uses the standard streams itself, and needs the real ones."""


@_ignores_DoNotPatch
def patch_os():
    """Patch :mod:`os`: forking, and waiting for children unless ``GEVENT_NOWAITPID`` is set.

    Goes together with :func:`patch_signal`; ``SIGCHLD`` needs both.
    """
    _patch_module("os")


@_ignores_DoNotPatch
def patch_queue():
    """Patch the classes of :mod:`queue`.

    ``GEVENT_MONKEY_DISABLE_QUEUE_QUEUE`` leaves ``Queue`` itself as it is.
    """
    import os

    from gevent._config import validate_bool

    items = ["SimpleQueue", "PriorityQueue", "LifoQueue"]
    if not validate_bool(os.environ.get("GEVENT_MONKEY_DISABLE_QUEUE_QUEUE", "false")):
        items.append("Queue")
    _patch_module("queue", items=items)


@_ignores_DoNotPatch
def patch_time():
    """Patch :func:`time.sleep`."""
    _patch_module("time")


@_ignores_DoNotPatch
def patch_contextvars():
    """Does nothing: every greenlet has a context of its own anyway."""


@_ignores_DoNotPatch
def patch_thread(
    threading=True,
    _threading_local=True,
    Event=True,
    logging=True,
    existing_locks=True,
    _warnings=None,
):
    """Patch :mod:`_thread`: threads become greenlets.

    *threading* also patches :mod:`threading` and, with *Event*, its ``Event``; *_threading_local*
    patches ``_threading_local.local``; *logging* replaces the locks of handlers that exist already;
    *existing_locks* sees to it that locks which are held at this moment can be released. All this
    reaches what Python objects show: locks made by C code are beyond it, hence the advice to
    patch early.
    """
    if sys.version_info[:2] < (3, 13):
        from ._patch_thread_lt313 import Patcher
    else:
        from ._patch_thread_gte313 import Patcher
    Patcher(
        threading=threading,
        _threading_local=_threading_local,
        Event=Event,
        logging=logging,
        existing_locks=existing_locks,
        _warnings=_warnings,
    )()


@_ignores_DoNotPatch
def patch_socket(dns=True, aggressive=True):
    """Patch :mod:`socket`, and with *dns* its name lookups too."""
    from gevent import socket

    items = socket.__implements__
    if not dns:
        items = set(items) - set(socket.__dns__)
    _patch_module("socket", items=items)
    if aggressive and "ssl" not in socket.__implements__:
        remove_item(socket, "ssl")


@_ignores_DoNotPatch
def patch_dns():
    """Patch the name lookups of :mod:`socket`. :func:`patch_socket` does so by default."""
    from gevent import socket

    _patch_module("socket", items=socket.__dns__)


def _find_module_refs(to, excluding_names=()):
    """Who else has the class *to*: ``({(module, file), ...}, {subclass, ...})``.

    The first are modules with a name bound to it, as ``from ssl import SSLContext`` leaves one.
    """
    import gc

    modules = set()
    for namespace in gc.get_referrers(to):
        if (
            isinstance(namespace, dict)
            and "__name__" in namespace
            and namespace["__name__"] not in excluding_names
            and any(value is to for value in namespace.values())
        ):
            modules.add((namespace["__name__"], namespace.get("__file__", "<unknown>")))
    subclasses = {cls for cls in to.__subclasses__() if "gevent." not in cls.__module__}
    return modules, subclasses


@_ignores_DoNotPatch
def patch_ssl(_warnings=None, _first_time=True):
    """Patch :mod:`ssl`; needs :func:`patch_socket`.

    Best done before anything imports :mod:`ssl`. Contexts of the original class, which others may
    hold, go on working and wrap cooperative sockets cooperatively; sockets that were wrapped
    already go on blocking. A warning says who is concerned.
    """
    late = _first_time and hasattr(sys.modules.get("ssl"), "SSLContext")
    gevent_mod, _ = _patch_module("ssl", _warnings=_warnings)
    if not late:
        return
    modules, subclasses = _find_module_refs(
        gevent_mod.orig_SSLContext, excluding_names=("ssl", "gevent.ssl")
    )
    if not modules and not subclasses:
        return
    # This makes each message a different one, which matters little: it happens once a process.
    message = (
        "Monkey-patching ssl after ssl has already been imported "
        "may lead to errors. Please monkey-patch earlier. "
    )
    if modules:
        message += "Modules that had direct imports (NOT patched): %s. " % (
            ["%s (%s)" % found for found in sorted(modules)],
        )
    if subclasses:
        message += "Subclasses (NOT patched): %s. " % (sorted(map(str, subclasses)),)
    _queue_warning(message, _warnings)


@_ignores_DoNotPatch
def patch_select(aggressive=True):
    """Patch ``select`` and ``poll`` of :mod:`select`.

    *aggressive* removes what has no cooperative version: ``epoll``, ``kqueue``, ``kevent`` and
    ``devpoll``.
    """
    _patch_module("select", _patch_kwargs={"aggressive": aggressive})


@_ignores_DoNotPatch
def patch_selectors(aggressive=True):
    """Patch ``DefaultSelector`` of :mod:`selectors`; *aggressive* as in :func:`patch_select`."""
    try:
        _check_availability("selectors")
    except ImportError:
        return
    _patch_module("selectors", _patch_kwargs={"aggressive": aggressive})


@_ignores_DoNotPatch
def patch_subprocess():
    """Patch :mod:`subprocess`.

    :mod:`multiprocessing` is made to start its processes by ``fork`` where it would not.
    """
    _patch_module("subprocess")


@_ignores_DoNotPatch
def patch_builtins():
    """Does nothing: imports lock by the module, which suits greenlets."""


@_ignores_DoNotPatch
def patch_signal():
    """Patch :mod:`signal` so that a ``SIGCHLD`` handler works with :func:`patch_os`."""
    _patch_module("signal")


def _check_repatching(settings):
    """Compare *settings* with those of earlier calls of :func:`patch_all`, and add them up.

    Returns ``(warnings, whether this is the first call, what is new)``.
    """
    _warnings = []
    before = saved.setdefault("_gevent_saved_patch_all_module_settings", {})
    first_time = not before
    if not first_time and before != settings:
        _queue_warning(
            "Patching more than once will result in the union of all True parameters being patched",
            _warnings,
        )
    new = {
        name: value
        for name, value in settings.items()
        if name not in before or (value and not before[name])
    }
    before.update(new)
    return _warnings, first_time, new


def _subscribe_signal_os(will_patch_all):
    """The entry point of our own that warns of half a ``SIGCHLD``."""
    if will_patch_all.will_patch_module("signal") and not will_patch_all.will_patch_module("os"):
        _queue_warning(
            "Patching signal but not os will result in SIGCHLD handlers"
            " installed after this not being called and os.waitpid may not"
            " function correctly if gevent.subprocess is used. This may raise an"
            " error in the future.",
            will_patch_all._warnings,
        )


def patch_all(
    socket=True,
    dns=True,
    time=True,
    select=True,
    thread=True,
    os=True,
    ssl=True,
    subprocess=True,
    sys=False,
    aggressive=True,
    Event=True,
    builtins=True,
    signal=True,
    queue=True,
    contextvars=True,
    **kwargs,
):
    """Patch everything, less what is turned off by an argument.

    A later call adds what is true in it, with a warning, and takes nothing back. *kwargs* are for
    subscribers to the events.

    Returns True if something was patched, False if a subscriber objected to all of it, None if
    there was nothing new to do.
    """
    wanted = dict(locals())
    del wanted["kwargs"]
    _warnings, first_time, new = _check_repatching(wanted)
    if not new:
        _process_warnings(_warnings)
        return None

    from gevent import events

    try:
        _notify_patch(events.GeventWillPatchAllEvent(new, kwargs), _warnings)
    except events.DoNotPatch:
        return False

    def due(name, *details):
        """Whether to patch *name*: it is wanted, and it or one of its *details* is new."""
        return wanted[name] and any(key in new for key in (name, *details))

    if due("os"):
        patch_os()
    if due("thread", "Event"):
        patch_thread(Event=Event, _warnings=_warnings)
    if due("time"):
        # After threads: what they import on the way wants the real sleep.
        patch_time()
    if due("sys"):
        # After threads, too, or the main one would be shut down under its native identity.
        patch_sys()
    if due("socket", "dns", "aggressive"):
        patch_socket(dns=dns, aggressive=aggressive)
    if due("select", "aggressive"):
        if PY314:
            # From 3.14 on, selectors tries each kind out to find its default. With a patched
            # select that would make a hub, which importing must not.
            patch_selectors(aggressive=aggressive)
            patch_select(aggressive=aggressive)
        else:
            patch_select(aggressive=aggressive)
            patch_selectors(aggressive=aggressive)
    if due("ssl"):
        patch_ssl(_warnings=_warnings, _first_time=first_time)
        objected = wanted["socket"] and not is_module_patched("socket")
        if objected and is_module_patched("ssl"):
            raise RuntimeError(
                "A subscriber to gevent's patch events objects to patching socket, but not to ssl, "
                "which needs it: TLS would block for ever. It has to object to ssl as well."
            )
    if due("subprocess"):
        patch_subprocess()
    if due("builtins"):
        patch_builtins()
    if due("signal"):
        patch_signal()
    if due("queue"):
        patch_queue()
    if due("contextvars"):
        patch_contextvars()

    _notify_patch(events.GeventDidPatchBuiltinModulesEvent(new, kwargs), _warnings)
    _notify_patch(events.GeventDidPatchAllEvent(new, kwargs), _warnings)
    _process_warnings(_warnings)
    return True
