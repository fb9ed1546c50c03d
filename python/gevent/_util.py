"""Descriptors and helpers without dependencies.

Nothing here may import a module that monkey-patching wants to see first; so ``functools``, which
takes a lock at import, is imitated where it is needed.
"""

from gevent._compat import pure_python_module


class _NONE:
    """The type of the marker for an argument that was not given, where `None` is a value."""

    __slots__ = ()

    def __repr__(self):
        return "<default value>"


_NONE = _NONE()

WRAPPER_ASSIGNMENTS = ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__")
WRAPPER_UPDATES = ("__dict__",)


def update_wrapper(wrapper, wrapped, assigned=WRAPPER_ASSIGNMENTS, updated=WRAPPER_UPDATES):
    """Give *wrapper* the name, documentation and attributes of *wrapped*, and return it.

    The same contract as `functools.update_wrapper`.
    """
    for name in assigned:
        if hasattr(wrapped, name):
            setattr(wrapper, name, getattr(wrapped, name))
    for name in updated:
        getattr(wrapper, name).update(getattr(wrapped, name, ()))
    # After the updates, or the wrapped object's own __wrapped__ would overwrite it.
    wrapper.__wrapped__ = wrapped
    return wrapper


def copy_globals(
    source,
    globs,
    only_names=None,
    ignore_missing_names=False,
    names_to_ignore=(),
    dunder_names_to_keep=("__implements__", "__all__", "__imports__"),
    cleanup_globs=True,
):
    """Copy names of the module *source* into the dictionary *globs* and return those names.

    With *only_names* just these are copied, and one that is missing is an `AttributeError`
    unless *ignore_missing_names*. Else everything is, but for *names_to_ignore* and names that
    begin with two underscores and are not in *dunder_names_to_keep*. With *cleanup_globs* the
    name ``copy_globals`` itself is taken out of *globs* afterwards.
    """
    if not only_names:
        found = source.__dict__.items()
    elif ignore_missing_names:
        found = [(name, getattr(source, name, _NONE)) for name in only_names]
    else:
        found = [(name, getattr(source, name)) for name in only_names]

    copied = [
        name
        for name, value in found
        if value is not _NONE
        and name not in names_to_ignore
        and (name[:2] != "__" or name in dunder_names_to_keep)
    ]
    globs.update((name, getattr(source, name)) for name in copied)
    if cleanup_globs:
        globs.pop("copy_globals", None)
    return copied


def import_c_accel(globs, cname):
    """Replace the contents of a module by those of its compiled twin *cname*, if there is one.

    Kept for modules of others that call it: gevent's own modules have no such twins.
    """
    if not cname.startswith("gevent._gevent_c"):
        cname = cname.replace("gevent._", "gevent._gevent_c")
    name = globs.get("__name__")
    if not name or name == cname or pure_python_module(name):
        return
    from importlib import import_module

    twin = import_module(cname)
    globs.clear()
    globs.update(vars(twin))
    globs.pop("import_c_accel", None)


class StandIn:
    """A link made of *callback*, which it looks like and is equal to, so that this unlinks it."""

    __slots__ = ("callback",)

    def __init__(self, callback):
        self.callback = callback

    def __hash__(self):
        return hash(self.callback)

    def __eq__(self, other):
        return self.callback == getattr(other, "callback", other)

    def __str__(self):
        return str(self.callback)

    def __repr__(self):
        return repr(self.callback)

    def __getattr__(self, item):
        assert item != "callback"
        return getattr(self.callback, item)


class Lazy:
    """A read-only property that is computed once and then kept in the instance's ``__dict__``."""

    def __init__(self, func):
        self.data = (func, func.__name__)
        update_wrapper(self, func)

    def __get__(self, inst, class_):
        if inst is None:
            return self
        func, name = self.data
        value = inst.__dict__[name] = func(inst)
        return value


class readproperty:
    """A property that is computed at each access until the instance assigns to the name.

    Unlike `Lazy` it keeps nothing; unlike `property` it does not stand in the way of a value
    in the instance's ``__dict__``.
    """

    def __init__(self, func):
        self.func = func
        update_wrapper(self, func)

    def __get__(self, inst, class_):
        return self if inst is None else self.func(inst)


class LazyOnClass:
    """Like `Lazy`, but the value replaces the descriptor in the class.

    For a value that all instances share and that costs an import which should not happen
    before it is needed.
    """

    @classmethod
    def lazy(cls, cls_dict, func):
        """Put a descriptor for *func* into *cls_dict*, under the name of *func*."""
        cls_dict[func.__name__] = cls(func)

    def __init__(self, func, name=None):
        self.name = name or func.__name__
        self.func = func

    def __get__(self, inst, klass):
        if inst is None:
            return self
        value = self.func(inst)
        setattr(klass, self.name, value)
        return value


def gmctime():
    """Return the present time in UTC as an RFC 3339 string."""
    from time import gmtime, strftime

    return strftime("%Y-%m-%dT%H:%M:%SZ", gmtime())


def prereleaser_middle(data):
    """Do nothing: a hook of upstream's release tool, kept so that its name resolves."""


def postreleaser_before(data):
    """Tell upstream's release tool not to touch the change log."""
    if data["name"] == "gevent":
        data["update_history"] = False
