"""A worker of the command: loads the application and serves it until it is told to stop."""

import os
import select
import signal
import socket
import sys
import time

from gevent.monkey import get_original

__all__ = ["work"]

#: Seconds that a listener may still bring connections when its server ends.
LAST_CALL = 2

_poll, _recv_fds = get_original("select", "poll"), socket.recv_fds


def work(options, sockets, channel, parent):
    """Serve; gives the exit code. Runs in a process of its own, after the fork."""
    if not options.no_patch:
        from gevent import monkey

        monkey.patch_all()
    import gevent
    from gevent.event import Event
    from gevent.pool import Pool
    from gevent.pywsgi import WSGIServer
    from gevent.pywsgi._command import load

    application = load(options.application)
    settings = {
        "log": _log(options.access_log),
        "environ": {"wsgi.multiprocess": options.workers > 1},
    }
    if options.handler_class:
        settings["handler_class"] = load(options.handler_class)
    if options.certfile:
        settings["certfile"] = options.certfile
        settings["keyfile"] = options.keyfile or options.certfile
    pool = Pool(options.connections)

    def serve(fd, shared):
        listener = gevent.socket.socket(fileno=fd)
        listener.setblocking(False)
        server = WSGIServer(listener, application, spawn=pool, **settings)
        server.max_accept = 1 if shared else WSGIServer.max_accept
        server.start()
        return server

    told = Event()
    quick = []

    def stop():
        told.set()

    def stop_at_once():
        quick.append(True)
        told.set()

    gevent.signal_handler(signal.SIGTERM, stop)
    for number in (signal.SIGINT, signal.SIGQUIT):
        gevent.signal_handler(number, stop_at_once)
    servers = []
    for sock in sockets:
        # Nobody else accepts from an Internet socket, for the most part.
        shared = sock.family == socket.AF_UNIX and options.workers > 1
        servers.append(serve(sock.detach(), shared))
    channel = gevent.socket.socket(channel.family, channel.type, fileno=channel.detach())
    adopted = Adopted(serve)
    gevent.spawn(adopted.listen, channel)
    _say(channel, b"!")
    while not told.wait(_beat(options)):
        if os.getppid() != parent:
            # Nobody is left to tell us anything.
            break
        _say(channel, b".")
    # From here on others accept from our sockets.
    _say(channel, b"x")
    servers += adopted.end()
    deadline = time.monotonic() + (0 if quick else options.graceful_timeout)
    if not quick:
        _take_what_waits(servers, min(deadline, time.monotonic() + LAST_CALL))
    for server in servers:
        server.close()
    servers += adopted.given_back
    while time.monotonic() < deadline and not all(server.drained() for server in servers):
        gevent.sleep(0.02)
    for server in servers:
        server.stop(timeout=0)
    return 0


class Adopted:
    """Servers for the sockets of other workers, which cannot serve at the time."""

    def __init__(self, serve):
        self._serve = serve
        self._servers = {}
        self._ended = False
        #: Closed, perhaps with connections that go on.
        self.given_back = []

    def listen(self, channel):
        """Do what the first process says, in lines: what, whose sockets, how many."""
        text, descriptors = b"", []
        while True:
            try:
                data, fds, _, _ = _recv_fds(channel, 4096, 64)
            except OSError:
                return
            descriptors += fds
            if not data:
                return
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                what, number, count = line.split()
                mine, descriptors = descriptors[: int(count)], descriptors[int(count) :]
                self._give_back(number)
                if what == b"adopt":
                    self._adopt(number, mine)

    def _adopt(self, number, descriptors):
        if self._ended:
            for fd in descriptors:
                os.close(fd)
            return
        for fd in descriptors:
            os.set_inheritable(fd, False)
        self._servers[number] = [self._serve(fd, True) for fd in descriptors]

    def _give_back(self, number):
        self.given_back = [server for server in self.given_back if not server.drained()]
        for server in self._servers.pop(number, ()):
            server.close()
            self.given_back.append(server)

    def end(self):
        """Adopt nothing more; gives what is still served."""
        self._ended = True
        return [server for servers in self._servers.values() for server in servers]


def _say(channel, what):
    try:
        channel._sock.send(what)
    except OSError:
        # Full, or nobody is there.
        pass


def _take_what_waits(servers, deadline):
    """Go on accepting until nothing waits to be accepted."""
    import gevent

    poll = _poll()
    for server in servers:
        if not server.closed:
            poll.register(server.socket.fileno(), select.POLLIN)
    while poll.poll(0) and time.monotonic() < deadline:
        gevent.sleep(0.001)


def _beat(options):
    """Seconds between signs of life."""
    return min(1.0, options.timeout / 3) if options.timeout else 1.0


def _log(path):
    if path is None:
        return None
    if path == "-":
        return sys.stderr
    # Whole lines, so that several workers can write to one file.
    return open(path, "a", buffering=1, encoding="utf-8")
