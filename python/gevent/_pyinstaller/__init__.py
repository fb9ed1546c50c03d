"""What PyInstaller needs to know to freeze a program that uses gevent or greenlet.

It asks for `hook_dirs` by the entry point ``pyinstaller40``. A frozen program has no site-packages
and so no start-up hook there: what that does for ``import greenlet`` is done by a run-time hook.
"""

import os

__all__ = ["hook_dirs"]


def hook_dirs():
    """The folders of hooks, as PyInstaller's documentation has them."""
    return [os.path.dirname(os.path.abspath(__file__))]
