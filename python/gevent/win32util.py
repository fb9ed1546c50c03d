"""Texts for Windows error numbers."""

import os

__all__ = ["formatError"]


class _ErrorFormatter:
    """Asks, in this order, ctypes, pywin32, a table and the C library; any may be missing."""

    def __init__(self, WinError, FormatMessage, errorTab):
        self.winError = WinError
        self.formatMessage = FormatMessage
        self.errorTab = errorTab

    @classmethod
    def fromEnvironment(cls):
        """Return a formatter with what can be imported here."""
        return cls(
            _find("ctypes", "WinError"),
            _find("win32api", "FormatMessage"),
            _find("socket", "errorTab"),
        )

    def formatError(self, errorcode):
        """Return the text for *errorcode*."""
        if self.winError is not None:
            return str(self.winError(errorcode))
        if self.formatMessage is not None:
            return self.formatMessage(errorcode)
        if self.errorTab is not None and self.errorTab.get(errorcode) is not None:
            return self.errorTab[errorcode]
        return os.strerror(errorcode)


def _find(module, name):
    try:
        return getattr(__import__(module), name, None)
    except ImportError:
        return None


formatError = _ErrorFormatter.fromEnvironment().formatError
