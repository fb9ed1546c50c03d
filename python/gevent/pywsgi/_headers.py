"""The fields of a request as an object: what a handler has as ``headers``."""

from http import client

__all__ = ["OldMessage", "from_pairs", "headers_factory"]


class OldMessage(client.HTTPMessage):
    """The mapping of :mod:`http.client` with three names of its predecessor in Python 2."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.status = ""

    def getheader(self, name, default=None):
        return self.get(name, default)

    @property
    def headers(self):
        """Every field as a line, in the order of arrival."""
        for name, value in self._headers:
            yield "%s: %s\r\n" % (name, value)

    @property
    def typeheader(self):
        return self.get("content-type")


def from_pairs(pairs):
    """A message with these names and values, which were checked already."""
    message = OldMessage()
    message._headers = pairs
    return message


def headers_factory(fp, *args):
    """Read fields, up to the blank line, from a file."""
    try:
        message = client.parse_headers(fp, _class=OldMessage)
    except client.LineTooLong:
        message = OldMessage()
        message.status = "Line too long"
    return message
