"""A queue of native threads, for gevent's own thread pools.

It works the same whether threading has been patched or not.
"""

from gevent import monkey
from gevent._compat import thread_mod_name
from gevent._core import TaskQueue as Queue

__all__ = [
    "EmptyTimeout",
    "Lock",
    "Queue",
]

start_new_thread, Lock, get_thread_ident = monkey.get_original(
    thread_mod_name, ["start_new_thread", "allocate_lock", "get_ident"]
)


class EmptyTimeout(Exception):
    """No item came to a `Queue` in time."""
