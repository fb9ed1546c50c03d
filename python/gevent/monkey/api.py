"""Replacing parts of a module, and finding what was there before."""

_NONE = object()


def get_original(mod_name, item_name):
    """What *item_name* of the module *mod_name* is, or was before it was patched.

    *mod_name* may be a sequence of names: the first that can be imported counts. *item_name* may
    be a sequence too, and then a list is returned.
    """
    from ._state import _get_original

    mod_names = [mod_name] if isinstance(mod_name, str) else list(mod_name)
    single = isinstance(item_name, str)
    items = [item_name] if single else item_name
    for name in mod_names:
        try:
            originals = _get_original(name, items)
        except ImportError:
            if name == mod_names[-1]:
                raise
        else:
            return originals[0] if single else originals
    return None


def patch_item(module, attr, newitem):
    """Make *newitem* the attribute *attr* of *module*, and remember what it was."""
    from ._state import _save

    olditem = getattr(module, attr, _NONE)
    if olditem is not _NONE:
        _save(module, attr, olditem)
    setattr(module, attr, newitem)


def remove_item(module, attr):
    """Remove *attr* from *module*, if it is there, and remember what it was."""
    from ._state import _save

    olditem = getattr(module, attr, _NONE)
    if olditem is not _NONE:
        _save(module, attr, olditem)
        delattr(module, attr)


def patch_module(
    target_module,
    source_module,
    items=None,
    _warnings=None,
    _patch_kwargs=None,
    _notify_will_subscribers=True,
    _notify_did_subscribers=True,
    _call_hooks=True,
):
    """Replace attributes of *target_module* by those of the same name in *source_module*.

    Which ones is said by *items*, or by the source's ``__implements__``. The source may have
    functions ``_gevent_will_monkey_patch(target_module, items, warn)``, which may change *items* or
    raise :exc:`gevent.events.DoNotPatch`, and ``_gevent_did_monkey_patch`` with the same
    arguments. They run before the subscribers to the events of the same names. ``warn(message)``
    warns the user once all is done.

    Returns whether the patch was made.
    """
    from gevent import events

    from ._errors import _BadImplements
    from ._util import _notify_patch

    if items is None:
        items = getattr(source_module, "__implements__", None)
        if items is None:
            raise _BadImplements(source_module)

    try:
        if _call_hooks:
            _call_module_hook(source_module, "will", target_module, items, _warnings)
        if _notify_will_subscribers:
            _notify_patch(
                events.GeventWillPatchModuleEvent(
                    target_module.__name__, source_module, target_module, items
                ),
                _warnings,
            )
    except events.DoNotPatch:
        return False

    # Our own modules may want more than a copy of each name.
    do_patch = getattr(
        source_module, "_gevent_do_monkey_patch", _GeventDoPatchRequest.default_patch_items
    )
    do_patch(_GeventDoPatchRequest(target_module, source_module, items, _patch_kwargs))

    if _call_hooks:
        _call_module_hook(source_module, "did", target_module, items, _warnings)
    if _notify_did_subscribers:
        _notify_patch(
            events.GeventDidPatchModuleEvent(target_module.__name__, source_module, target_module)
        )
    return True


class _GeventDoPatchRequest:
    """What a module of ours that patches by itself gets to work with."""

    get_original = staticmethod(get_original)

    def __init__(self, target_module, source_module, items, patch_kwargs):
        self.target_module = target_module
        self.source_module = source_module
        self.items = items
        self.patch_kwargs = patch_kwargs or {}

    def __repr__(self):
        return "<%s target=%r source=%r items=%r kwargs=%r>" % (
            self.__class__.__name__,
            self.target_module,
            self.source_module,
            self.items,
            self.patch_kwargs,
        )

    def default_patch_items(self):
        for attr in self.items:
            patch_item(self.target_module, attr, getattr(self.source_module, attr))

    def remove_item(self, target_module, *items):
        """``remove_item([module, ]name, ...)``; without a module, from the target."""
        if isinstance(target_module, str):
            items = (target_module, *items)
            target_module = self.target_module
        for item in items:
            remove_item(target_module, item)


def _call_module_hook(gevent_module, when, module, items, _warnings):
    from ._util import _queue_warning

    hook = getattr(gevent_module, "_gevent_%s_monkey_patch" % when, None)
    if hook is not None:
        hook(module, items, lambda message: _queue_warning(message, _warnings))
