"""A queue of native threads, for gevent's own thread pools.

It works the same whether threading has been patched or not.
"""

from gevent import monkey
from gevent._compat import thread_mod_name
from gevent._core import TaskQueue as Queue
from gevent._core import helper_thread_failed, helper_thread_starts

__all__ = [
    "EmptyTimeout",
    "Lock",
    "Queue",
]

start_new_thread, Lock, get_thread_ident = monkey.get_original(
    thread_mod_name, ["start_new_thread", "allocate_lock", "get_ident"]
)


def start_helper_thread(start, function):
    """Start a native thread of gevent's own, which does not count where a wait looks for others.

    *start* is `start_new_thread`. The first that *function* does is to call `helper_thread_begins`.
    """
    helper_thread_starts()
    try:
        return start(function, ())
    except:
        helper_thread_failed()
        raise


class EmptyTimeout(Exception):
    """No item came to a `Queue` in time."""
