"""``bind`` of a server's listener, which waits a moment for a port that is about to become free."""

import errno
import time

from gevent._config import loop_preference
from gevent.monkey.api import get_original

__all__ = ["bind"]

# A server may be made in the hub, which cannot wait cooperatively.
_sleep = get_original("time", "sleep")

#: Seconds. Ports were free again 8 to 9 ms after a process with 300 connections was killed.
PATIENCE = 0.1
STEP = 0.001


def bind(sock, address):
    """``sock.bind(address)``. On ``uring``, try for up to 0.1 seconds while the address is in use.

    The kernel takes an io_uring apart after its process is gone, and the ring holds the sockets
    until then. So a server that was killed and starts again finds its own port taken for some
    milliseconds.

    :raises OSError: as ``bind``.
    """
    give_up = None
    while True:
        try:
            return sock.bind(address)
        except OSError as ex:
            if ex.errno != errno.EADDRINUSE or "uring" not in loop_preference():
                raise
            now = time.monotonic()
            if give_up is None:
                give_up = now + PATIENCE
            if now >= give_up:
                raise
        _sleep(STEP)
