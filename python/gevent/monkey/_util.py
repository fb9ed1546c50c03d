"""Steps that the patch functions have in common."""

import sys


def _notify_patch(event, _warnings=None):
    """Tell subscribers and plugins; they may raise :exc:`gevent.events.DoNotPatch`."""
    from gevent.events import notify_and_call_entry_points

    event._warnings = _warnings
    notify_and_call_entry_points(event)


def _ignores_DoNotPatch(func):
    """Have *func* return False if somebody objects to the patch."""
    from functools import wraps

    @wraps(func)
    def ignores(*args, **kwargs):
        from gevent.events import DoNotPatch

        try:
            return func(*args, **kwargs)
        except DoNotPatch:
            return False

    return ignores


def _check_availability(name):
    """Import gevent's *name* and its target: ``(gevent_module, target_module, target_name)``.

    Ours first: then it can use plain imports to get at the originals.
    """
    gevent_module = getattr(__import__("gevent." + name), name)
    target_module_name = getattr(gevent_module, "__target__", name)
    return gevent_module, __import__(target_module_name), target_module_name


def _patch_module(
    name,
    items=None,
    _warnings=None,
    _patch_kwargs=None,
    _notify_will_subscribers=True,
    _notify_did_subscribers=True,
    _call_hooks=True,
):
    """Patch the target of ``gevent.<name>``; return both modules."""
    from ._state import saved
    from .api import patch_module

    gevent_module, target_module, target_module_name = _check_availability(name)
    patch_module(
        target_module,
        gevent_module,
        items=items,
        _warnings=_warnings,
        _patch_kwargs=_patch_kwargs,
        _notify_will_subscribers=_notify_will_subscribers,
        _notify_did_subscribers=_notify_did_subscribers,
        _call_hooks=_call_hooks,
    )

    # Copies of the target that go by other names, as backports make them.
    for other_name in getattr(gevent_module, "__alternate_targets__", ()):
        other = sys.modules.get(other_name)
        if other is not None and other is not target_module:
            saved.pop(other_name, None)
            patch_module(
                other,
                gevent_module,
                items=items,
                _warnings=_warnings,
                _notify_will_subscribers=False,
                _notify_did_subscribers=False,
                _call_hooks=False,
            )
            saved[other_name] = saved[target_module_name]

    return gevent_module, target_module


def _queue_warning(message, _warnings):
    """Keep *message* for the end, so that warning imports nothing half-way; or warn, if alone."""
    if _warnings is None:
        _process_warnings([message])
    else:
        _warnings.append(message)


def _process_warnings(_warnings):
    import warnings

    from ._errors import MonkeyPatchWarning

    for message in _warnings:
        warnings.warn(message, MonkeyPatchWarning, stacklevel=3)
