"""The record of what has been patched, and the questions about it."""

#: By module name: attribute name to the object that was there first. Other packages that patch
#: are known to read it.
saved: dict = {}


def is_module_patched(mod_name):
    """Whether anything in the standard library's module *mod_name* has been replaced."""
    return mod_name in saved


def is_object_patched(mod_name, item_name):
    """Whether *item_name* of the standard library's module *mod_name* has been replaced."""
    return item_name in saved.get(mod_name, ())


def is_anything_patched():
    """Whether this package has patched anything in this process."""
    return bool(saved)


def _get_original(name, items):
    originals = saved.get(name, {})
    module = None
    values = []
    for item in items:
        if item in originals:
            values.append(originals[item])
            continue
        module = module or __import__(name, fromlist=[item])
        values.append(getattr(module, item))
    return values


def _save(module, attr_name, item):
    # Only the first time: a second patch finds our own object.
    saved.setdefault(module.__name__, {}).setdefault(attr_name, item)
