"""The API of `contextvars` with contexts that belong to greenlets.

Greenlets have contexts of the standard library's too, so this is not patched in its place. It is
for programs that want variables that know of greenlets only. Setting one copies the context.
"""

from collections.abc import Mapping

from gevent._util import _NONE
from gevent.local import local

__all__ = [
    "Context",
    "ContextVar",
    "Token",
    "copy_context",
]

__stdlib_expected__ = __implements__ = __all__


class _ContextState(local):
    """The current context of each greenlet."""

    def __init__(self):
        self.context = Context()


def _not_base_type(cls):
    raise TypeError("not an acceptable base type")


class ContextVar:
    """See `contextvars.ContextVar`."""

    __slots__ = ("_default", "_name")

    def __init__(self, name, default=_NONE):
        self._name = name
        self._default = default

    __init_subclass__ = classmethod(_not_base_type)

    @classmethod
    def __class_getitem__(cls, _):
        return cls

    @property
    def name(self):
        """The name given to the constructor."""
        return self._name

    def get(self, default=_NONE):
        """Return the value in the current context, else *default*, else the variable's default."""
        for value in (_context_state.context._data.get(self, _NONE), default, self._default):
            if value is not _NONE:
                return value
        raise LookupError

    def set(self, value):
        """Set the value in the current context and return a token for `reset`."""
        return _context_state.context._set_value(self, value)

    def reset(self, token):
        """Put the value back that the variable had before the `set` that returned *token*."""
        token._reset(self)

    def __repr__(self):
        return "<%s.%s name=%r default=%r at 0x%x>" % (
            type(self).__module__,
            type(self).__name__,
            self._name,
            self._default,
            id(self),
        )


class Token:
    """See `contextvars.Token`."""

    MISSING = _NONE

    __slots__ = ("_context", "_old_value", "_used", "_var")

    def __init__(self, context, var, old_value):
        self._context = context
        self._var = var
        self._old_value = old_value
        self._used = False

    __init_subclass__ = classmethod(_not_base_type)

    @property
    def var(self):
        """The variable that was set."""
        return self._var

    @property
    def old_value(self):
        """The value it had before, or `MISSING`."""
        return self._old_value

    def _reset(self, var):
        if self._used:
            raise RuntimeError("Taken has already been used once")
        if self._var is not var:
            raise ValueError("Token was created by a different ContextVar")
        if self._context is not _context_state.context:
            raise ValueError("Token was created in a different Context")
        self._used = True
        self._context._put_back(var, self._old_value)

    def __repr__(self):
        return "<%s.%s%s var=%r at 0x%x>" % (
            type(self).__module__,
            type(self).__name__,
            " used" if self._used else "",
            self._var,
            id(self),
        )


class Context(Mapping):
    """See `contextvars.Context`. As there, the mapping knows nothing of variables' defaults."""

    __slots__ = ("_data", "_prev_context")

    def __init__(self):
        # Never changed but replaced, so that copies can share it.
        self._data = {}
        self._prev_context = None

    __init_subclass__ = classmethod(_not_base_type)

    def run(self, function, *args, **kwargs):
        """Call the function with this as the current context."""
        if self._prev_context is not None:
            raise RuntimeError(f"Cannot enter context; {self} is already entered")
        self._prev_context = _context_state.context
        try:
            _context_state.context = self
            return function(*args, **kwargs)
        finally:
            _context_state.context = self._prev_context
            self._prev_context = None

    def copy(self):
        """Return another context with the same values."""
        result = Context()
        result._data = self._data
        return result

    def _set_value(self, var, value):
        token = Token(self, var, self._data.get(var, Token.MISSING))
        self._put_back(var, value)
        return token

    def _put_back(self, var, value):
        data = dict(self._data)
        if value is Token.MISSING:
            del data[var]
        else:
            data[var] = value
        self._data = data

    @staticmethod
    def _check_key(key):
        if type(key) is not ContextVar:
            raise TypeError("ContextVar key was expected")

    def __getitem__(self, key):
        self._check_key(key)
        return self._data[key]

    def __contains__(self, key):
        self._check_key(key)
        return key in self._data

    def __len__(self):
        return len(self._data)

    def __iter__(self):
        return iter(self._data)


def copy_context():
    """Return a copy of the current context."""
    return _context_state.context.copy()


_context_state = _ContextState()
