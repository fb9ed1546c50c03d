"""Names looked up on the hub: the hosts file and DNS servers, without a thread.

The messages, retries, search domains and the order of the results are native
(:class:`gevent._core.Resolver`). What needs no question (numeric hosts, services, flags, and their
errors) is the C library's to say, so that results and errors are those of :mod:`socket`.
"""

from _socket import (
    AF_INET,
    AF_INET6,
    AI_ADDRCONFIG,
    AI_ALL,
    AI_CANONNAME,
    AI_NUMERICHOST,
    AI_V4MAPPED,
    EAI_AGAIN,
    EAI_FAMILY,
    EAI_NODATA,
    EAI_NONAME,
    NI_NAMEREQD,
    NI_NOFQDN,
    NI_NUMERICHOST,
    gaierror,
    gethostname,
    herror,
    inet_aton,
)
import _socket

from gevent import _core
from gevent._config import AresSettingMixin, config
from gevent.hub import get_hub
from gevent.resolver import AbstractResolver

__all__ = ["Resolver"]

#: Flags of c-ares that mean something here.
_USEVC, _PRIMARY, _NOSEARCH = 1, 2, 32

#: ``h_errno`` and its texts.
_HOST_NOT_FOUND = (1, "Unknown host")
_TRY_AGAIN = (2, "Host name lookup failure")

_TEXTS = {
    EAI_NONAME: "Name or service not known",
    EAI_NODATA: "No address associated with hostname",
    EAI_AGAIN: "Temporary failure in name resolution",
    EAI_FAMILY: "ai_family not supported",
}


def _servers_of(servers):
    """A list of server addresses, from a list or a text with commas."""
    if isinstance(servers, str):
        servers = [server.strip() for server in servers.split(",")]
    return [server for server in servers if server]


class Resolver(AbstractResolver):
    """Asks DNS servers on the hub of the thread, as resolv.conf, nsswitch.conf and hosts say.

    A greenlet that is killed, or whose time is over, takes its questions with it. Files that have
    changed are read again. Nothing is cached.

    :keyword servers: addresses of the servers to ask, instead of those of resolv.conf; a list, or
        a text with commas (``GEVENT_RESOLVER_NAMESERVERS``, ``GEVENTARES_SERVERS``).
    :keyword timeout: seconds that a look-up may take in all, or that a server has to answer if
        there are several *tries* (``GEVENT_RESOLVER_TIMEOUT``, ``GEVENTARES_TIMEOUT``).
    :keyword tries: how often each server is asked (``GEVENTARES_TRIES``).
    :keyword ndots: a name with so many dots is tried as it is first (``GEVENTARES_NDOTS``).
    :keyword udp_port: the port of the servers (``GEVENTARES_UDP_PORT``).
    :keyword tcp_port: the same for TCP (``GEVENTARES_TCP_PORT``).
    :keyword flags: flags of c-ares (``GEVENTARES_FLAGS``): 1 to use TCP only, 2 to ask the first
        server only, 32 to ignore search domains; others change nothing.
    :keyword search: domains to try, instead of those of resolv.conf.
    :keyword hosts: the path of the hosts file.
    """

    def __init__(
        self,
        hub=None,
        use_environ=True,
        *,
        servers=None,
        timeout=None,
        tries=None,
        ndots=None,
        udp_port=None,
        tcp_port=None,
        flags=None,
        search=None,
        hosts=None,
    ):
        if hub is None:
            hub = get_hub()
        given = {
            "servers": servers,
            "timeout": timeout,
            "tries": tries,
            "ndots": ndots,
            "udp_port": udp_port,
            "tcp_port": tcp_port,
            "flags": flags,
        }
        if use_environ:
            for setting in config.settings.values():
                if isinstance(setting, AresSettingMixin):
                    value = setting.get()
                    if value is not None and given[setting.kwarg_name] is None:
                        given[setting.kwarg_name] = value
        flags = int(given["flags"] or 0)
        servers = _servers_of(given["servers"] or ())
        timeout = given["timeout"] and float(given["timeout"])
        tries = given["tries"] and int(given["tries"])
        self._core = _core.Resolver(
            servers=servers[:1] if flags & _PRIMARY else servers,
            timeout=timeout,
            total=timeout and timeout * (tries or 1),
            tries=tries,
            ndots=None if given["ndots"] is None else int(given["ndots"]),
            udp_port=given["udp_port"] and int(given["udp_port"]),
            tcp_port=given["tcp_port"] and int(given["tcp_port"]),
            search=[] if flags & _NOSEARCH else search,
            hosts=hosts,
            tcp_only=bool(flags & _USEVC),
            first_only=bool(flags & _PRIMARY),
        )
        if gaierror not in hub.NOT_ERROR:
            # That a name is not known is an answer; the hub need not print it.
            hub.NOT_ERROR += (gaierror, herror)

    def __repr__(self):
        return "<%s.%s at 0x%x servers=%s>" % (
            type(self).__module__,
            type(self).__name__,
            id(self),
            ", ".join(self._core.servers),
        )

    def _lookup(self, host, family, flags=0, ordered=True):
        """``(canonical name, aliases, addresses)`` of a name, or gaierror."""
        try:
            host = host.decode("ascii")
        except UnicodeDecodeError:
            raise gaierror(EAI_NONAME, _TEXTS[EAI_NONAME]) from None
        found = self._core.lookup(host, family, flags, ordered)
        if isinstance(found, int):
            raise gaierror(found, _TEXTS[found])
        return found

    def _getaddrinfo(self, host, port, family, socktype, proto, flags):
        try:
            # Whatever is wrong with the other arguments comes out here.
            return _socket.getaddrinfo(host, port, family, socktype, proto, flags | AI_NUMERICHOST)
        except gaierror as ex:
            if ex.errno != EAI_NONAME:
                raise
        canonical, _, addresses = self._lookup(host, family, flags)
        flags &= ~(AI_CANONNAME | AI_ADDRCONFIG | AI_V4MAPPED | AI_ALL)
        infos = []
        for address in addresses:
            infos += _socket.getaddrinfo(
                address, port, 0, socktype, proto, flags | AI_NUMERICHOST
            )
        return infos, canonical

    def getaddrinfo(self, host, port, family=0, socktype=0, proto=0, flags=0):
        found = super().getaddrinfo(host, port, family, socktype, proto, flags)
        if isinstance(found, list):
            return found
        infos, canonical = found
        if flags & AI_CANONNAME and infos:
            # glibc tells it once.
            infos[0] = (*infos[0][:3], canonical, infos[0][4])
        return infos

    def gethostbyname(self, hostname, family=AF_INET):
        host = self._hostname_to_bytes(hostname)
        if host in self._LOCAL_AND_BROADCAST_HOSTNAMES or not host or _is_numeric(host):
            return _socket.gethostbyname(host)
        return self._lookup(host, family)[2][0]

    def _gethostbyname_ex(self, host, family):
        if not host or _is_numeric(host):
            return _socket.gethostbyname_ex(host)
        return self._lookup(host, family, ordered=False)

    def _gethostbyaddr(self, host):
        address = _socket.getaddrinfo if _is_numeric(host) else self.getaddrinfo
        address = address(host, None, 0, 0, 0)[0][4][0]
        names = self._core.reverse(address.partition("%")[0])
        if isinstance(names, int):
            raise herror(*(_TRY_AGAIN if names == EAI_AGAIN else _HOST_NOT_FOUND))
        return names[0], names[1:], [address]

    def _getnameinfo(self, host, port, sockaddr, flags):
        # The service, the address as text, and whatever is wrong with the arguments.
        numeric, service = _socket.getnameinfo(sockaddr, flags & ~NI_NAMEREQD | NI_NUMERICHOST)
        if flags & NI_NUMERICHOST:
            if flags & NI_NAMEREQD:
                return _socket.getnameinfo(sockaddr, flags)
            return numeric, service
        names = self._core.reverse(numeric.partition("%")[0])
        if isinstance(names, int):
            if names == EAI_AGAIN and flags & NI_NAMEREQD:
                raise gaierror(EAI_AGAIN, _TEXTS[EAI_AGAIN])
            if flags & NI_NAMEREQD:
                raise gaierror(EAI_NONAME, _TEXTS[EAI_NONAME])
            return numeric, service
        name = names[0]
        if flags & NI_NOFQDN:
            domain = gethostname().partition(".")[2]
            if domain:
                name = name.removesuffix("." + domain)
        return name, service


def _is_numeric(host):
    """Whether the C library takes *host* for an address."""
    try:
        if host.strip() == host:
            inet_aton(host.decode("ascii"))
            return True
    except (OSError, UnicodeDecodeError):
        pass
    try:
        _socket.getaddrinfo(host, None, AF_INET6, 0, 0, AI_NUMERICHOST)
        return True
    except gaierror:
        return False
