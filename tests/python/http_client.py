"""A client for tests of HTTP servers: bytes out, answers in, nothing repaired on the way."""

import contextlib

import gevent
from gevent import socket


class Answer:
    """One answer: ``status`` (number), ``reason``, ``fields`` (lower case), ``body``."""

    def __init__(self, rfile, method="GET"):
        line = rfile.readline()
        if not line:
            raise EOFError("no answer")
        self.version, code, *rest = line.decode("latin-1").rstrip("\r\n").split(" ", 2)
        self.status = int(code)
        self.reason = rest[0] if rest else ""
        self.fields = {}
        self.names = []
        while True:
            line = rfile.readline().decode("latin-1").rstrip("\r\n")
            if not line:
                break
            name, _, value = line.partition(":")
            self.names.append(name)
            assert name.lower() not in self.fields, name
            self.fields[name.lower()] = value.strip()
        self.chunks = None
        if self.status in (100, 101, 204, 304) or method == "HEAD":
            self.body = b""
        elif self.fields.get("transfer-encoding") == "chunked":
            self.chunks = list(_chunks(rfile))
            self.body = b"".join(self.chunks)
        elif "content-length" in self.fields:
            self.body = rfile.read(int(self.fields["content-length"]))
        else:
            self.body = rfile.read()


def _chunks(rfile):
    while True:
        size = int(rfile.readline(), 16)
        data = rfile.read(size)
        assert len(data) == size, "cut off in a chunk"
        assert rfile.readline() == b"\r\n"
        if not size:
            return
        yield data


class Client:
    """A connection to a server."""

    def __init__(self, address):
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.sock = socket.socket(family)
        self.sock.settimeout(30)
        try:
            self.sock.connect(address)
        except BaseException:
            self.sock.close()
            raise
        self.rfile = self.sock.makefile("rb")

    def send(self, data):
        self.sock.sendall(data)

    def answer(self, method="GET"):
        return Answer(self.rfile, method)

    def ask(self, head, body=b"", method="GET"):
        """Send a head, given by its lines without their ends, and a body; read the answer."""
        lines = [head] if isinstance(head, str) else list(head)
        self.send("".join(line + "\r\n" for line in [*lines, ""]).encode("latin-1") + body)
        return self.answer(method)

    def at_end(self):
        """Whether the server closed the connection, with nothing more sent."""
        try:
            return self.rfile.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self):
        self.rfile.close()
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Log:
    """Lines that a server logged."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        pass

    @property
    def lines(self):
        return self.text.splitlines()

    def wait(self, count=1):
        """The lines, once there are so many."""
        for _ in range(6000):
            if len(self.lines) >= count:
                return self.lines
            gevent.sleep(0.005)
        raise AssertionError(f"{count} lines wanted: {self.lines}")


@contextlib.contextmanager
def serving(application, server_class, **settings):
    """A server on a free port, started; its logs are `log` and `error_log`."""
    attributes = settings.pop("attributes", {})
    settings.setdefault("log", Log())
    settings.setdefault("error_log", Log())
    listener = settings.pop("listener", ("127.0.0.1", 0))
    server = server_class(listener, application, **settings)
    for name, value in attributes.items():
        setattr(server, name, value)
    server.start()
    try:
        yield server
    finally:
        server.stop(timeout=1)
