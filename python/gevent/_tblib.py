"""Tracebacks as bytes and back, so that a stored exception does not keep frames alive.

`dump_traceback` keeps file names, function names and line numbers. `load_traceback` makes real
traceback objects from them, which print like the original; their frames have no variables.
"""

_GLOBALS_KEPT = ("__file__", "__name__")


class _Placeholder(Exception):
    """Raised by the code that `Traceback.as_traceback` runs in order to obtain a traceback."""


class Traceback:
    """The lines of a traceback, outermost call first."""

    __slots__ = ("entries",)

    def __init__(self, tb):
        self.entries = []
        while tb is not None:
            frame = tb.tb_frame
            code = frame.f_code
            kept = {k: frame.f_globals[k] for k in _GLOBALS_KEPT if k in frame.f_globals}
            self.entries.append((code.co_filename, code.co_name, tb.tb_lineno, kept))
            tb = tb.tb_next

    def as_dict(self):
        """Return the contents as a dictionary of plain values."""
        return {"entries": self.entries}

    to_dict = as_dict

    @classmethod
    def from_dict(cls, dct):
        """Return a `Traceback` with what `as_dict` returned."""
        self = cls(None)
        self.entries = [tuple(entry) for entry in dct["entries"]]
        return self

    def as_traceback(self):
        """Return the first of a chain of traceback objects, or `None` if there are no lines."""
        tb = None
        for entry in reversed(self.entries):
            current = _single(*entry)
            current.tb_next = tb
            tb = current
        return tb

    to_traceback = as_traceback


def _single(filename, name, lineno, global_names):
    """Return a traceback object of one entry, by failing at the place that it names."""
    code = compile("raise _Placeholder", filename, "exec")
    code = code.replace(co_name=name, co_firstlineno=lineno)
    try:
        exec(code, {**global_names, "_Placeholder": _Placeholder}, {})
    except _Placeholder as ex:
        return ex.__traceback__.tb_next


#: What stands for no traceback; nothing has to be imported for it.
NO_TRACEBACK = b""


def dump_traceback(tb):
    """Return the bytes for the traceback *tb*, which may be `None`."""
    if tb is None:
        return NO_TRACEBACK
    # Not imported above: pickle takes a while, and few programs keep an exception.
    from pickle import dumps

    return dumps(Traceback(tb).as_dict())


def load_traceback(s):
    """Return a traceback for the bytes *s* from `dump_traceback`, or `None`."""
    if s == NO_TRACEBACK:
        return None
    from pickle import loads

    return Traceback.from_dict(loads(s)).as_traceback()
