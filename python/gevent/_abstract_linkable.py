"""The base of what can be waited for: events, semaphores and results are made of it.

All of that is native. What is here in Python says which threads there are besides the caller's.
"""

import os
import sys
from _thread import get_ident

from gevent._core import AbstractLinkable, set_main_thread

__all__ = [
    "AbstractLinkable",
]

#: Identifiers of native threads that gevent started for itself: workers of pools, monitors. They
#: use objects of the program only while they run a task, and then the loop knows about it.
helper_thread_idents = set()


def _after_fork_in_child():
    set_main_thread()
    helper_thread_idents.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _other_threads_exist():
    """Tell whether there is another native thread that could use an object of the program."""
    others = sys._current_frames().keys() - helper_thread_idents
    others.discard(get_ident())
    return bool(others)
