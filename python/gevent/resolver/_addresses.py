"""Telling addresses from names."""

from socket import AF_INET, AF_INET6, inet_pton

_TEXT = (str, bytes, bytearray)


class AddressSyntaxError(ValueError):
    """The text is no address."""


def _packed(family, text):
    try:
        if not isinstance(text, str):
            text = bytes(text).decode("ascii")
        return inet_pton(family, text)
    except (OSError, ValueError) as ex:
        raise AddressSyntaxError(text) from ex


def _ipv4_inet_aton(text):
    """The four bytes of an IPv4 address in full dotted form."""
    return _packed(AF_INET, text)


def _ipv6_inet_aton(text):
    """The sixteen bytes of an IPv6 address without a scope."""
    return _packed(AF_INET6, text)


def _is_addr(host, parse):
    if not host or not isinstance(host, _TEXT):
        return False
    try:
        parse(host)
        return True
    except AddressSyntaxError:
        return False


def is_ipv4_addr(host):
    """Whether *host* is an IPv4 address in full dotted form."""
    return _is_addr(host, _ipv4_inet_aton)


def is_ipv6_addr(host):
    """Whether *host* is an IPv6 address, perhaps with a scope after ``%``."""
    if isinstance(host, _TEXT):
        host = host.split("%" if isinstance(host, str) else b"%", 1)[0]
    return _is_addr(host, _ipv6_inet_aton)
