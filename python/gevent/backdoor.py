"""A Python console for a running process, by network: `BackdoorServer`.

``python -m gevent.backdoor PORT [BANNER]`` starts one in a process of its own.
"""

import builtins
import socket
import sys
from code import InteractiveConsole

from gevent.greenlet import Greenlet
from gevent.hub import getcurrent
from gevent.pool import Pool
from gevent.server import StreamServer

__all__ = [
    "BackdoorServer",
]

if not hasattr(sys, "ps1"):
    sys.ps1 = ">>> "
if not hasattr(sys, "ps2"):
    sys.ps2 = "... "


class _Greenlet_stdreplace(Greenlet):
    """A greenlet that has standard streams of its own while it runs."""

    stdin = None
    stdout = None
    _outer = None

    def switch(self, *args, **kw):
        if self.stdin is not None:
            self.switch_in()
        return super().switch(*args, **kw)

    def throw(self, *args, **kwargs):
        if self.stdin is not None and self._outer is None:
            self.switch_in()
        return super().throw(*args, **kwargs)

    def switch_in(self):
        """Put the own streams in place."""
        self._outer = (sys.stdin, sys.stdout, sys.stderr)
        sys.stdin = self.stdin
        sys.stdout = sys.stderr = self.stdout

    def switch_out(self):
        """Put the streams of the process back. The hub calls this whenever the greenlet waits."""
        outer, self._outer = self._outer, None
        if outer is not None:
            sys.stdin, sys.stdout, sys.stderr = outer

    def run(self):
        try:
            return super().run()
        finally:
            self.switch_out()


class BackdoorServer(StreamServer):
    """Gives everyone who connects a Python console in this process.

    There is no password and no limit to what can be done, so listen where only trusted people
    can connect, such as on the loopback interface::

        from gevent.backdoor import BackdoorServer
        server = BackdoorServer(('127.0.0.1', 5001),
                                banner="Hello from gevent backdoor!",
                                locals={'foo': "From defined scope!"})
        server.serve_forever()

    Then, elsewhere::

        $ telnet 127.0.0.1 5001
        Trying 127.0.0.1...
        Connected to 127.0.0.1.
        Escape character is '^]'.
        Hello from gevent backdoor!
        >> print(foo)
        From defined scope!

    The consoles end when the server is stopped.
    """

    def __init__(self, listener, locals=None, banner=None, **server_args):
        """*locals* are variables for each console, and *banner* is what it says at first."""
        spawn = Pool(greenlet_class=_Greenlet_stdreplace)
        super().__init__(listener, spawn=spawn, **server_args)
        self.locals = {"__doc__": None, "__name__": "__console__", **(locals or {})}
        self.banner = banner
        self.stderr = sys.stderr

    def _create_interactive_locals(self):
        # A copy for each connection. The module rather than its dictionary, which would be shown
        # in full by locals().
        return {**self.locals, "builtins": builtins, "__builtins__": builtins}

    def handle(self, conn, _address):
        """Serve one connection."""
        try:
            conn.setsockopt(socket.SOL_TCP, socket.TCP_NODELAY, True)
        except OSError:
            pass
        fobj = conn.makefile(mode="r")
        current = getcurrent()
        current.stdin = _StdIn(conn, fobj)
        current.stdout = _StdErr(conn, fobj)
        current.switch_in()
        try:
            console = InteractiveConsole(self._create_interactive_locals())
            # Without a word at the end, when the connection may be closed.
            console.interact(banner=self.banner, exitmsg="")
        except SystemExit:
            # quit() means this console.
            pass
        finally:
            fobj.close()
            conn.close()


class _BaseFileLike:
    """One direction of a connection as a text stream; what it lacks it takes from *stdin*."""

    softspace = None
    encoding = "utf-8"

    __slots__ = ("fileno", "fobj", "sock")

    def __init__(self, sock, stdin):
        self.sock = sock
        self.fobj = stdin
        # input() compares it with the process's own.
        self.fileno = sock.fileno

    def __getattr__(self, name):
        return getattr(self.fobj, name)

    def close(self):
        """Do nothing: the connection is closed by who accepted it."""


class _StdErr(_BaseFileLike):
    """Writes without a buffer, as nobody flushes it."""

    __slots__ = ()

    def flush(self):
        """Do nothing."""

    def write(self, data):
        """Send *data*, text or bytes."""
        self.sock.sendall(data if isinstance(data, bytes) else data.encode(self.encoding))


class _StdIn(_BaseFileLike):
    """Reads lines, which come with the line ends of telnet."""

    __slots__ = ()

    def readline(self, *a):
        """Return the next line; an empty one, which is the end, for what is not text."""
        try:
            return self.fobj.readline(*a).replace("\r\n", "\n")
        except UnicodeError:
            # Telnet's way of sending Ctrl-C.
            return ""


def _main():
    if not sys.argv[1:]:
        print(f"USAGE: {sys.argv[0]} PORT [banner]")
        return
    banner = sys.argv[2] if len(sys.argv) > 2 else None
    server = BackdoorServer(
        ("127.0.0.1", int(sys.argv[1])), banner=banner, locals={"hello": "world"}
    )
    server.serve_forever()


if __name__ == "__main__":
    _main()
