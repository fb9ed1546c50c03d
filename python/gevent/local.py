"""`local`: an object whose attributes each greenlet has for itself."""

from copy import copy
from weakref import WeakKeyDictionary, ref

from greenlet import getcurrent

__all__ = [
    "local",
]

#: In a greenlet's ``__dict__`` a key with this prefix names a weak reference to the state of a
#: `local` that the greenlet has used.
key_prefix = "_gevent_local_localimpl_"

_MISSING = object()


def all_local_dicts_for_greenlet(greenlet):
    """Return what *greenlet* keeps in `local` objects, for debugging.

    The result is a list of pairs: one of the type and the id of the object, and the dictionary of
    its attributes in *greenlet*.
    """
    found = []
    for key, wrimpl in list(greenlet.__dict__.items()):
        impl = wrimpl() if key.startswith(key_prefix) else None
        entry = impl.dicts.get(id(greenlet)) if impl is not None else None
        if entry is not None:
            found.append((impl.localtypeid, entry[1]))
    return found


class _wrefdict(dict):
    """A dictionary that can be weakly referenced."""


class _localimpl:
    """The state of one `local`: its constructor's arguments and a dictionary for each greenlet."""

    __slots__ = ("__weakref__", "dicts", "key", "localargs", "localkwargs", "localtypeid")

    def __init__(self, args, kwargs, local_type, id_local):
        self.key = key_prefix + str(id(self))
        # id of the greenlet -> (weak reference to the greenlet, its attributes)
        self.dicts = _wrefdict()
        self.localargs = args
        self.localkwargs = kwargs
        self.localtypeid = (local_type, id_local)

    def create_dict(self, greenlet):
        """Give *greenlet* an empty dictionary, which goes when either of the two does."""
        key, idt, wrdicts = self.key, id(greenlet), ref(self.dicts)

        def greenlet_ended(_):
            dicts = wrdicts()
            if dicts:
                dicts.pop(idt, None)

        # A Greenlet tells when it ends, though the object may live on in a cycle. Others do not.
        if hasattr(greenlet, "rawlink"):
            greenlet.rawlink(greenlet_ended)
            wrgreenlet = ref(greenlet)
        else:
            wrgreenlet = ref(greenlet, greenlet_ended)

        def local_deleted(_):
            greenlet = wrgreenlet()
            if greenlet is not None:
                if hasattr(greenlet, "unlink"):
                    greenlet.unlink(greenlet_ended)
                greenlet.__dict__.pop(key, None)

        greenlet.__dict__[key] = ref(self, local_deleted)
        values = {}
        self.dicts[idt] = (wrgreenlet, values)
        return values


class local:
    """An object whose attributes are greenlet-local.

    A subclass may have an ``__init__`` with arguments: it is called, with the arguments of the
    constructor, in each greenlet that uses the object. Slots are shared by all greenlets.
    """

    __slots__ = ("_local__impl",)

    def __new__(cls, *args, **kw):
        if (args or kw) and cls.__init__ is object.__init__:
            raise TypeError("Initialization arguments are not supported", args, kw)
        self = super().__new__(cls)
        impl = _localimpl(args, kw, cls, id(self))
        _set_impl(self, impl)
        # Now, so that __init__, which is called next, does not find it missing and is run twice.
        impl.create_dict(getcurrent())
        return self

    def __getattribute__(self, name):
        if name in ("_local__impl", "__class__"):
            # isinstance() asks for the class; that is no use of the object by this greenlet.
            return object.__getattribute__(self, name)
        values = _values(self)
        cls = type(self)
        if name in values and name not in _names_of(cls):
            return values[name]
        if name == "__dict__":
            return values
        # As object.__getattribute__ does it, but with this greenlet's values as the __dict__.
        attr = _find_in_type(cls, name)
        if attr is _MISSING:
            raise AttributeError(f"{cls.__name__!r} object has no attribute '{name}'")
        kind = type(attr)
        getter = getattr(kind, "__get__", None)
        if name in values and not (
            getter is not None and (hasattr(kind, "__set__") or hasattr(kind, "__delete__"))
        ):
            return values[name]
        return attr if getter is None else getter(attr, self, cls)

    def __setattr__(self, name, value):
        if name == "__dict__":
            raise AttributeError(f"{type(self)!r} object attribute '__dict__' is read-only")
        values = _values(self)
        if name in _names_of(type(self)):
            attr = _find_in_type(type(self), name)
            setter = getattr(type(attr), "__set__", None)
            if setter is not None:
                setter(attr, self, value)
                return
        values[name] = value

    def __delattr__(self, name):
        if name == "__dict__":
            raise AttributeError(
                f"{type(self).__name__!r} object attribute '__dict__' is read-only"
            )
        values = _values(self)
        if name in _names_of(type(self)):
            attr = _find_in_type(type(self), name)
            deleter = getattr(type(attr), "__delete__", None)
            if deleter is not None:
                deleter(attr, self)
                return
        if name not in values:
            raise AttributeError(name)
        del values[name]

    def __copy__(self):
        impl = _get_impl(self)
        current = getcurrent()
        values = copy(impl.dicts[id(current)][1])
        duplicate = type(self)(*impl.localargs, **impl.localkwargs)
        dicts = _get_impl(duplicate).dicts
        dicts[id(current)] = (dicts[id(current)][0], values)
        return duplicate


# The slot itself, as the methods above would call themselves to get at it.
_get_impl = local.__dict__["_local__impl"].__get__
_set_impl = local.__dict__["_local__impl"].__set__

_names_by_class = WeakKeyDictionary()


def _names_of(cls):
    """Return the names that *cls* and its bases define."""
    names = _names_by_class.get(cls)
    if names is None:
        names = _names_by_class[cls] = frozenset(dir(cls)) | {"__dict__"}
    return names


def _find_in_type(cls, name):
    """Return the attribute *name* of *cls* without calling a descriptor, or `_MISSING`."""
    for base in cls.__mro__:
        if name in base.__dict__:
            return base.__dict__[name]
    return _MISSING


def _values(self):
    """Return the dictionary of the current greenlet, after calling ``__init__`` if it is new."""
    impl = _get_impl(self)
    current = getcurrent()
    entry = impl.dicts.get(id(current))
    if entry is not None:
        return entry[1]
    values = impl.create_dict(current)
    self.__init__(*impl.localargs, **impl.localkwargs)
    return values
