"""A worker for gunicorn: its processes and settings, our HTTP server.

    gunicorn -k gevent.gunicorn.Worker package.module:application

gunicorn's own ``gevent`` worker reads HTTP in Python; this one has it read, and answered, by the
native server of :mod:`gevent.pywsgi`. The settings that it heeds are listed in docs/wsgi.md.
"""

import os
import ssl
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import partial

from gunicorn.glogging import Logger
from gunicorn.http.wsgi import base_environ
from gunicorn.sock import ssl_context
from gunicorn.workers import base

import gevent
from gevent import hub, monkey, socket
from gevent.event import Event
from gevent.pool import Pool
from gevent.pywsgi import WSGIServer

__all__ = ["Worker"]


class Worker(base.Worker):
    """Serves every socket of the process by a :class:`gevent.pywsgi.WSGIServer`."""

    server_class = WSGIServer

    @classmethod
    def check_config(cls, cfg, log):
        """Refuse what would be ignored otherwise and matters."""
        if cfg.proxy_protocol not in (False, None, "off"):
            raise RuntimeError("gevent.gunicorn.Worker does not speak the PROXY protocol")

    def init_process(self):
        monkey.patch_all()
        self.sockets = [_gevent_socket(each) for each in self.sockets]
        hub.reinit()
        self.check_config(self.cfg, self.log)
        self._told = Event()
        super().init_process()

    def run(self):
        """Serve until gunicorn says stop; then finish the requests."""
        pool = Pool(self.cfg.worker_connections)
        application = self.wrap(self.wsgi)
        servers = [self.make_server(sock, application, pool) for sock in self.sockets]
        for server in servers:
            server.start()
        try:
            while self.alive:
                self.notify()
                if self.ppid != os.getppid():
                    self.log.info("Parent changed, shutting down: %s", self)
                    break
                self._told.wait(1.0)
        except BaseException:
            # The process ends, but the hub runs once more until it has: for others to have their
            # last turn, and not to accept what would be cut off.
            for server in servers:
                server.close()
            raise
        self.drain(servers)

    def make_server(self, sock, application, pool):
        """The server for one listening socket."""
        cfg = self.cfg
        environ = base_environ(cfg)
        # Ours sends files without reading them.
        environ.pop("wsgi.file_wrapper", None)
        environ["SERVER_SOFTWARE"] = "gevent/%s gunicorn" % gevent.__version__
        server = self.server_class(
            sock,
            application,
            spawn=pool,
            log=None,
            error_log=_ErrorLog(self.log),
            environ=environ,
            **self.tls(),
        )
        server._report = partial(self.report, server)
        # 0 is no limit but that of the head.
        server.max_line = cfg.limit_request_line or sys.maxsize >> 1
        server.max_headers = cfg.limit_request_fields
        if cfg.limit_request_field_size:
            # The parser bounds the head as a whole.
            server.max_head = (cfg.limit_request_line or 8190) + max(
                65536, cfg.limit_request_field_size
            )
        else:
            server.max_head = None
        if cfg.keepalive:
            server.idle_timeout = cfg.keepalive
        return server

    def report(self, server, context, kind, value, tb):
        """An error of the application or of the server, into gunicorn's error log."""
        core = gevent.get_hub()
        if issubclass(kind, core.SYSTEM_ERROR):
            server.loop.handle_error(context, kind, value, tb)
        elif not issubclass(kind, core.NOT_ERROR):
            if isinstance(context, Mapping):
                what = "Error handling request %s" % _raw_uri(context)
            else:
                what = "Error in %r" % (context,)
            self.log.error("%s", what, exc_info=(kind, value, tb))

    def tls(self):
        """The arguments of the server for TLS."""
        cfg = self.cfg
        if not cfg.is_ssl:
            return {}
        plain = (
            not cfg.ca_certs
            and not cfg.ciphers
            and cfg.cert_reqs == ssl.CERT_NONE
            and cfg.ssl_context is cfg.settings["ssl_context"].default
        )
        if plain and cfg.keyfile:
            return {"certfile": cfg.certfile, "keyfile": cfg.keyfile}
        return {"ssl_context": ssl_context(cfg)}

    def wrap(self, application):
        """The application as it is served: counted, logged, told of the proxy in front."""
        application = _behind_proxy(application, self.cfg)
        if self.log.access_log_enabled or type(self.log).access is not Logger.access:
            application = _logged(application, self.log)
        if not self.cfg.keepalive:
            application = _closing(application)
        if self.max_requests < sys.maxsize:
            application = self._counted(application)
        return application

    def _counted(self, application):
        def counted(environ, start_response):
            self.nr += 1
            if self.nr == self.max_requests:
                self.log.info("Autorestarting worker after current request.")
                self.alive = False
                self._told.set()
            return application(environ, start_response)

        return counted

    def drain(self, servers):
        """Accept no more; let the requests that run come to their end, within gunicorn's limit."""
        deadline = time.monotonic() + self.cfg.graceful_timeout
        for server in servers:
            server.close()
        while not all(server.drained() for server in servers):
            left = deadline - time.monotonic()
            if left <= 0:
                self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
                break
            self.notify()
            gevent.sleep(min(0.05, left))
        for server in servers:
            server.stop(timeout=0)

    # Signals. They come while some greenlet runs, which must not block for them.

    def handle_exit(self, sig, frame):
        super().handle_exit(sig, frame)
        self._told.set()

    def handle_quit(self, sig, frame):
        gevent.spawn(super().handle_quit, sig, frame)

    def handle_usr1(self, sig, frame):
        gevent.spawn(super().handle_usr1, sig, frame)


def _gevent_socket(wrapped):
    sock = wrapped.sock
    family, kind = sock.family, sock.type
    sock = socket.socket(family, kind, fileno=sock.detach())
    sock.setblocking(False)
    return sock


class _ErrorLog:
    """gunicorn's error log as a file to write lines to."""

    def __init__(self, log):
        self._log = log

    def write(self, text):
        text = text.rstrip("\n")
        if text:
            self._log.warning("%s", text)

    def writelines(self, lines):
        for line in lines:
            self.write(line)

    def flush(self):
        """Nothing: a logger does that by itself."""


def _behind_proxy(application, cfg):
    """Believe what a proxy that is trusted says of the scheme, as gunicorn's other workers do."""
    trusted = cfg.forwarded_allow_ips
    everybody = "*" in trusted
    secure = [
        ("HTTP_" + name.upper().replace("-", "_"), value)
        for name, value in cfg.secure_scheme_headers.items()
    ]
    script_name = os.environ.get("SCRIPT_NAME", "").rstrip("/")

    def is_trusted(environ):
        # Who comes through a Unix socket has no address, and is trusted.
        return everybody or environ.get("REMOTE_ADDR") in trusted or "REMOTE_ADDR" not in environ

    def behind_proxy(environ, start_response):
        # Most requests have none of the fields, and nobody has to be asked.
        for key, value in secure:
            if key in environ and environ[key] == value and is_trusted(environ):
                environ["wsgi.url_scheme"] = "https"
                break
        if script_name and environ["PATH_INFO"].startswith(script_name):
            environ["SCRIPT_NAME"] = script_name
            environ["PATH_INFO"] = environ["PATH_INFO"][len(script_name) :]
        return application(environ, start_response)

    return behind_proxy


def _closing(application):
    """Without keep-alive."""

    def closing(environ, start_response):
        def start(status, headers, exc_info=None):
            headers = [(k, v) for k, v in headers if k.lower() != "connection"]
            headers.append(("Connection", "close"))
            return start_response(status, headers, exc_info)

        return application(environ, start)

    return closing


class _Answer:
    """What gunicorn's access log asks an answer for."""

    status = "500 Internal Server Error"
    headers = ()
    sent = 0


class _Counted:
    """What an application returned; when it is closed, the request is logged."""

    def __init__(self, body, answer, done):
        self._body = body
        self._answer = answer
        self._done = done

    def __iter__(self):
        for piece in self._body:
            self._answer.sent += len(piece)
            yield piece

    def close(self):
        try:
            if hasattr(self._body, "close"):
                self._body.close()
        finally:
            self._done()


class _CountedList(_Counted):
    """The same, of a known length. Counted at once: a server looks through it to sum that up."""

    def __init__(self, body, answer, done):
        super().__init__(body, answer, done)
        answer.sent += sum(map(len, body))

    def __iter__(self):
        return iter(self._body)

    def __len__(self):
        return len(self._body)


def _logged(application, log):
    """Write gunicorn's access log."""

    def logged(environ, start_response):
        answer = _Answer()
        began = time.monotonic()

        def start(status, headers, exc_info=None):
            write = start_response(status, headers, exc_info)
            answer.status, answer.headers = status, headers

            def counted_write(data):
                answer.sent += len(data)
                return write(data)

            return counted_write

        def done():
            taken = timedelta(seconds=time.monotonic() - began)
            log.access(answer, _request_fields(environ), environ, taken)

        environ.setdefault("RAW_URI", _raw_uri(environ))
        try:
            body = application(environ, start)
        except BaseException:
            done()
            raise
        kind = _CountedList if isinstance(body, (list, tuple)) else _Counted
        return kind(body, answer, done)

    return logged


def _request_fields(environ):
    return [
        (key[5:].replace("_", "-"), value)
        for key, value in environ.items()
        if key.startswith("HTTP_")
    ]


def _raw_uri(environ):
    from urllib.parse import quote

    path = quote(environ["SCRIPT_NAME"] + environ["PATH_INFO"], safe="/:;=@$,", encoding="latin-1")
    query = environ.get("QUERY_STRING")
    return path + "?" + query if query else path
