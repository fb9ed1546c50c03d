"""The lingering close of connections that handlers have served (RFC 9112 §9.6).

A client that is closed while it sends is reset, and may lose an answer that it has not read. So
this side says that nothing follows, and throws away what comes, in a greenlet of its own that
takes no place in the server's pool. How long is bounded, as a client may never stop.
"""

import time
from _socket import SHUT_WR

from gevent.greenlet import Greenlet
from gevent.hub import sleep
from gevent.socket import socket

__all__ = ["limit", "linger"]

#: Seconds, and how many bytes a client has to send in them to be listened to further.
_STRETCH = 5
_LEAST = 5 * 1024

#: Seconds for all of it, when the server ends or so many clients are listened to already.
HURRY = 2
_MANY = 256

#: Bytes that are received before other greenlets have their turn.
TURN = 256 * 1024

_PIECE = 65536


def limit(server):
    """Seconds for which a client may go on sending what nobody reads; None for ever."""
    seconds = getattr(server, "linger_timeout", 30)
    if getattr(server, "_draining", False) or len(getattr(server, "_lingering", ())) > _MANY:
        return HURRY if seconds is None else min(seconds, HURRY)
    return seconds


def linger(server, sock):
    """Take *sock* over and close it in a while. If that is not possible, it stays the caller's."""
    try:
        _say_goodbye(sock)
        taken = socket(fileno=sock.detach())
    except (OSError, AttributeError, TypeError):
        # The client is gone already, or it is some object of the program's own.
        return
    lingering = getattr(server, "_lingering", None)
    if lingering is not None:
        lingering.add(taken)
    listener = Greenlet.spawn(_listen, server, taken)
    # It may get no stack, and then has closed nothing.
    listener.rawlink(lambda _: _let_go(server, taken))


def _say_goodbye(sock):
    session = getattr(sock, "_sslobj", None)
    if session is not None:
        try:
            # It does not block, and the client's own goodbye is not waited for.
            session.shutdown()
        except (OSError, ValueError):
            pass
    sock.shutdown(SHUT_WR)


def _listen(server, sock):
    seconds = limit(server)
    until = float("inf") if seconds is None else time.monotonic() + seconds
    try:
        while _stretch(sock, until):
            pass
    except OSError:
        # The client is gone, or the server has closed it.
        pass
    finally:
        _let_go(server, sock)


def _let_go(server, sock):
    lingering = getattr(server, "_lingering", None)
    if lingering is not None:
        lingering.discard(sock)
    sock.close()


def _stretch(sock, until):
    """Listen for a stretch of time; whether to go on."""
    end = min(until, time.monotonic() + _STRETCH)
    heard = seen = 0
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            size = len(sock.recv(_PIECE))
        except TimeoutError:
            break
        if not size:
            return False
        heard += size
        if heard - seen >= TURN:
            # A client may send as fast as it is listened to.
            seen = heard
            sleep(0)
    return heard >= _LEAST and time.monotonic() < until
