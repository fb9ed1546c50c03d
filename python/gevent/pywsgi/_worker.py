"""A worker of the command: loads the application and serves it until it is told to stop."""

import os
import signal
import sys
import time

__all__ = ["work"]


def work(options, sockets, pipe, parent):
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
    servers = []
    for sock in sockets:
        listener = gevent.socket.socket(sock.family, sock.type, fileno=sock.detach())
        listener.setblocking(False)
        server = WSGIServer(listener, application, spawn=pool, **settings)
        if sock.family != gevent.socket.AF_UNIX:
            # Nobody else accepts from it.
            server.max_accept = WSGIServer.max_accept
        servers.append(server)

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
    for server in servers:
        server.start()
    os.set_blocking(pipe, False)
    os.write(pipe, b"!")
    while not told.wait(_beat(options)):
        if os.getppid() != parent:
            # Nobody is left to tell us anything.
            break
        try:
            os.write(pipe, b".")
        except OSError:
            pass
    for server in servers:
        server.close()
    deadline = time.monotonic() + (0 if quick else options.graceful_timeout)
    while time.monotonic() < deadline and not all(server.drained() for server in servers):
        gevent.sleep(0.02)
    for server in servers:
        server.stop(timeout=0)
    return 0


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
