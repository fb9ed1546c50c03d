"""`local`: an object whose attributes each greenlet has for itself."""

from gevent._core import _greenlet_deleted, _local_key_prefix, _localimpl, local

__all__ = [
    "local",
]

#: In a greenlet's ``__dict__`` a key with this prefix names a weak reference to the state of a
#: `local` that the greenlet has used.
key_prefix = _local_key_prefix

# Under their older place.
_EXPORTED = (_greenlet_deleted, _localimpl)


def all_local_dicts_for_greenlet(greenlet):
    """Return what *greenlet* keeps in `local` objects, for debugging.

    The result is a list of pairs: one of the type and the id of the object, and the dictionary of
    its attributes in *greenlet*.
    """
    found = []
    for key, wrimpl in list(greenlet.__dict__.items()):
        impl = wrimpl() if key.startswith(key_prefix) else None
        values = impl.values_of(greenlet) if impl is not None else None
        if values is not None:
            found.append((impl.localtypeid, values))
    return found
