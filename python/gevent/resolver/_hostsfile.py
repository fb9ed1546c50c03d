"""Reading ``/etc/hosts``."""

import os
import sys

from gevent.resolver._addresses import is_ipv4_addr, is_ipv6_addr


class HostsFile:
    """The names and addresses of a hosts file, read again when it has changed.

    ``v4`` and ``v6`` map names to addresses, ``aliases`` further names to the first of their line,
    ``reverse`` the names of pointer records to names.
    """

    def __init__(self, fname=None):
        if fname is None:
            fname = (
                "/etc/hosts"
                if os.name == "posix"
                else os.path.expandvars(r"%SystemRoot%\system32\drivers\etc\hosts")
            )
        self.fname = fname
        self.v4 = {}
        self.v6 = {}
        self.aliases = {}
        self.reverse = {}
        self._last_load = 0

    def _readlines(self):
        with open(self.fname, "rb") as file:
            text = file.read().decode(errors="ignore")
        lines = (line.partition("#")[0].strip() for line in text.splitlines())
        return [line for line in lines if line]

    def load(self):
        """Read the file if it is newer than what we know."""
        try:
            changed = os.stat(self.fname).st_mtime
        except OSError:
            from gevent import get_hub

            get_hub().handle_error(self, *sys.exc_info())
            return
        if changed <= self._last_load:
            return

        v4, v6, aliases, reverse = {}, {}, {}, {}
        for line in self._readlines():
            address, *names = line.split()
            if is_ipv4_addr(address):
                names_of_kind = v4
                pointer = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
            elif is_ipv6_addr(address) and not address.startswith("fe80"):
                # Link-local addresses mean nothing without a scope.
                names_of_kind = v6
                pointer = address + ".ip6.arpa."
            else:
                continue
            names = [name.lower() for name in names]
            for name in names:
                names_of_kind[name] = address
            for alias in names[1:]:
                aliases[alias] = names[0]
            if names:
                reverse.setdefault(pointer, names[0])

        self._last_load = changed
        self.v4, self.v6, self.aliases, self.reverse = v4, v6, aliases, reverse

    def iter_all_host_addr_pairs(self):
        """Every ``(name, address)`` of the file."""
        self.load()
        yield from self.v4.items()
        yield from self.v6.items()
