"""Name lookup: what kinds there are, and what they have in common.

The hub's resolver is what the functions of :mod:`gevent.socket` ask. ``GEVENT_RESOLVER``, or
``gevent.config.resolver``, says which: ``thread`` (the default), ``native``, ``block``, ``ares``,
``dnspython`` or the full name of a class with the methods of :class:`AbstractResolver`.
"""

import sys
from functools import wraps

import _socket
from _socket import (
    AF_INET,
    AF_UNSPEC,
    AI_CANONNAME,
    AI_NUMERICHOST,
    AI_PASSIVE,
    EAI_NONAME,
    EAI_SERVICE,
    SOCK_DGRAM,
    SOCK_STREAM,
    SOL_TCP,
    error,
    gaierror,
)

from gevent._compat import MAC, PYPY, integer_types, string_types, text_type
from gevent.resolver._addresses import is_ipv6_addr

__all__ = ()

#: The C library's functions, by the names that upstream has for them.
native_getaddrinfo = _socket.getaddrinfo
native_gethostbyaddr = _socket.gethostbyaddr
native_gethostbyname = _socket.gethostbyname
native_gethostbyname_ex = _socket.gethostbyname_ex
native_getnameinfo = _socket.getnameinfo
native_getservbyname = _socket.getservbyname

hostname_types = (str, bytes, bytearray)

# Loads the codec. An import in the middle of a lookup could wait for a lock whose holder waits
# for the lookup.
"".encode("idna")


def _services(name, socktype):
    """``(port, socket types)`` of a service by name."""
    kinds = {SOCK_STREAM: "tcp", SOCK_DGRAM: "udp"}
    if socktype:
        if socktype not in kinds:
            raise gaierror(EAI_SERVICE, "Servname not supported for ai_socktype")
        return _socket.getservbyname(name, kinds[socktype]), []

    port, found = None, []
    for kind, protocol in kinds.items():
        try:
            number = _socket.getservbyname(name, protocol)
        except error:
            # The last has the say, if none knows it.
            if kind == SOCK_DGRAM and not found:
                raise
            continue
        if port in (None, number):
            port = number
            found.append(kind)
    return port, found


def _lookup_port(port, socktype):
    """``(number, socket types)`` for a port that may be a service's name, a number or None."""
    socktypes = []
    if isinstance(port, str):
        try:
            port = int(port)
        except ValueError:
            try:
                port, socktypes = _services(port, socktype)
            except gaierror:
                raise
            except OSError as ex:
                if "not found" in str(ex):
                    raise gaierror(EAI_SERVICE, "Servname not supported for ai_socktype")
                raise gaierror(str(ex))
            except UnicodeEncodeError:
                raise error("Int or String expected", port)
    elif port is None:
        port = 0
    elif not isinstance(port, int):
        raise error("Int or String expected", port, type(port))
    if not socktypes and socktype:
        socktypes.append(socktype)
    return port % 65536, socktypes


def _resolve_special(hostname, family):
    """The wildcard address for an empty *hostname*; any other is returned as it is."""
    if not isinstance(hostname, hostname_types):
        raise TypeError("argument 1 must be str, bytes or bytearray, not %s" % (type(hostname),))
    if hostname not in ("", b""):
        return hostname
    result = _socket.getaddrinfo(None, 0, family, SOCK_DGRAM, 0, AI_PASSIVE)
    if len(result) != 1:
        raise error("wildcard resolved to multiple address")
    return result[0][4][0]


class AbstractResolver:
    """The part of a resolver that asks nobody.

    Checks arguments, and leaves to the C library what it can answer without a question. A
    subclass supplies :meth:`_getaddrinfo`, :meth:`_gethostbyaddr` and :meth:`_getnameinfo`, which
    get host names as bytes.
    """

    HOSTNAME_ENCODING = "idna"

    _LOCAL_HOSTNAMES = (
        b"localhost",
        b"ip6-localhost",
        b"::1",
        b"127.0.0.1",
    )

    _LOCAL_AND_BROADCAST_HOSTNAMES = (
        *_LOCAL_HOSTNAMES,
        b"255.255.255.255",
        b"<broadcast>",
    )

    EAI_NONAME_MSG = (
        "nodename nor servname provided, or not known"
        if sys.platform == "darwin"
        else "Name or service not known"
    )

    EAI_FAMILY_MSG = "ai_family not supported"

    _KNOWN_ADDR_FAMILIES = {
        value for name, value in vars(_socket).items() if name.startswith("AF_")
    }

    _KNOWN_SOCKTYPES = {
        value
        for name, value in vars(_socket).items()
        if name.startswith("SOCK_") and name not in ("SOCK_CLOEXEC", "SOCK_MAX_SIZE")
    }

    def close(self):
        """Release what the resolver holds. Nothing, here."""

    @staticmethod
    def fixup_gaierror(func):
        """Give an ``EAI_NONAME`` without a text the text that the C library has for it."""

        @wraps(func)
        def resolve(self, *args, **kwargs):
            try:
                return func(self, *args, **kwargs)
            except gaierror as ex:
                if ex.args == (EAI_NONAME,):
                    ex.args = (EAI_NONAME, self.EAI_NONAME_MSG)
                    ex.errno = EAI_NONAME
                raise

        return resolve

    def _hostname_to_bytes(self, hostname):
        if isinstance(hostname, str):
            return hostname.encode(self.HOSTNAME_ENCODING)
        if not isinstance(hostname, hostname_types):
            raise TypeError("Expected str, bytes or bytearray, not %s" % type(hostname).__name__)
        return bytes(hostname)

    def gethostbyname(self, hostname, family=AF_INET):
        hostname = self._hostname_to_bytes(hostname)
        if hostname in self._LOCAL_AND_BROADCAST_HOSTNAMES:
            return _socket.gethostbyname(hostname)
        return self.gethostbyname_ex(_resolve_special(hostname, family), family)[-1][0]

    def gethostbyname_ex(self, hostname, family=AF_INET):
        hostname = self._hostname_to_bytes(hostname)
        if hostname in self._LOCAL_AND_BROADCAST_HOSTNAMES:
            return _socket.gethostbyname_ex(hostname)
        return self._gethostbyname_ex(hostname, family)

    def _gethostbyname_ex(self, hostname_bytes, family):
        found = self.getaddrinfo(hostname_bytes, 0, family, SOCK_STREAM, SOL_TCP, AI_CANONNAME)
        return (
            found[0][3],
            self._getaliases(hostname_bytes, family),
            [info[4][0] for info in found],
        )

    def _getaliases(self, hostname, family):
        return []

    def getaddrinfo(self, host, port, family=0, socktype=0, proto=0, flags=0):
        host = None if host is None else self._hostname_to_bytes(host)
        if (
            host is None
            or flags & AI_NUMERICHOST
            or host in self._LOCAL_HOSTNAMES
            or (host.startswith(b"fe80") and is_ipv6_addr(host))
        ):
            return _socket.getaddrinfo(host, port, family, socktype, proto, flags)
        return self._getaddrinfo(host, port, family, socktype, proto, flags)

    def _getaddrinfo(self, host_bytes, port, family, socktype, proto, flags):
        raise NotImplementedError  # abstract

    def gethostbyaddr(self, ip_address):
        address = self._hostname_to_bytes(_resolve_special(ip_address, AF_UNSPEC))
        if address in self._LOCAL_AND_BROADCAST_HOSTNAMES:
            return _socket.gethostbyaddr(address)
        return self._gethostbyaddr(address)

    def _gethostbyaddr(self, ip_address_bytes):
        raise NotImplementedError  # abstract

    def getnameinfo(self, sockaddr, flags):
        if not isinstance(flags, int):
            raise TypeError("an integer is required")
        if not isinstance(sockaddr, tuple):
            raise TypeError("getnameinfo() argument 1 must be a tuple")
        address = self._hostname_to_bytes(sockaddr[0])
        if address in self._LOCAL_AND_BROADCAST_HOSTNAMES:
            return _socket.getnameinfo(sockaddr, flags)
        port = sockaddr[1]
        if not isinstance(port, int):
            raise TypeError("port must be an integer, not %s" % type(port))
        if len(sockaddr) > 2 and sockaddr[2] > 0xFFFFF:
            raise OverflowError("getnameinfo(): flowinfo must be 0-1048575.")
        return self._getnameinfo(address, 0 if port >= 65536 else port, sockaddr, flags)

    def _getnameinfo(self, address_bytes, port, sockaddr, flags):
        raise NotImplementedError  # abstract
