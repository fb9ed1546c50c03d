"""Sockets and name lookups that let other greenlets run while they wait.

Names, arguments and results are those of the standard library's :mod:`socket`; its constants and
exceptions are here too. :func:`wait_read`, :func:`wait_write`, :func:`wait_readwrite` and
:func:`cancel_wait` are additions, for descriptors of other libraries.
"""

import socket as __socket__
import sys

from types import FunctionType

from gevent import _socket3 as _source
from gevent import _socketcommon
from gevent._socket3 import SOCK_STREAM, error, getaddrinfo, socket
from gevent._util import copy_globals

copy_globals(
    _source,
    globals(),
    dunder_names_to_keep=(
        "__implements__",
        "__dns__",
        "__all__",
        "__extensions__",
        "__imports__",
        "__socket__",
    ),
    cleanup_globs=False,
)
copy_globals(_socketcommon, globals(), only_names=_socketcommon.__extensions__)

_GLOBAL_DEFAULT_TIMEOUT = getattr(__socket__, "_GLOBAL_DEFAULT_TIMEOUT", None) or object()


def _connect_to(info, timeout, source_address):
    """A socket connected to one result of :func:`getaddrinfo`; closed if that fails."""
    family, kind, protocol, _canonname, address = info
    sock = socket(family, kind, protocol)
    try:
        if timeout is not _GLOBAL_DEFAULT_TIMEOUT:
            sock.settimeout(timeout)
        if source_address:
            sock.bind(source_address)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def create_connection(
    address, timeout=_GLOBAL_DEFAULT_TIMEOUT, source_address=None, *, all_errors=False
):
    """Connect to ``(host, port)``, trying each address of the host in turn.

    *timeout* (seconds; the default is :func:`getdefaulttimeout`) bounds each attempt and stays
    with the socket. *source_address* is what to bind to first. If every attempt fails, the error
    of the last is raised, or all of them in an ``ExceptionGroup`` if *all_errors* is true
    (from Python 3.11 on; earlier versions ignore it).
    """
    host, port = address
    candidates = list(getaddrinfo(host, port, 0, SOCK_STREAM))
    if not candidates:
        raise error("getaddrinfo returns an empty list")

    errors = []
    try:
        for info in candidates:
            try:
                return _connect_to(info, timeout, source_address)
            except error as ex:
                errors.append(ex)
        if all_errors and sys.version_info >= (3, 11):
            raise ExceptionGroup("create_connection failed", errors)  # noqa: F821
        raise errors[-1]
    finally:
        # An exception refers to this frame, and must not be referred to by it.
        errors.clear()


_source.create_connection = create_connection


# The standard library's own code, which would make its own sockets: those of it that accept would
# hold up every greenlet. It looks for the class by name, and finds ours.
create_server = FunctionType(
    __socket__.create_server.__code__,
    {**vars(__socket__), "socket": socket},
    "create_server",
    __socket__.create_server.__defaults__,
)
create_server.__kwdefaults__ = __socket__.create_server.__kwdefaults__
create_server.__doc__ = __socket__.create_server.__doc__
