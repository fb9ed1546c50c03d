"""Servers: handing out connections, limits, errors, stopping; streams, TLS and datagrams."""

import errno
import pathlib
import socket as std
import ssl as std_ssl

import pytest

import gevent
from gevent import pool, pywsgi, select, server, socket, ssl
from gevent.baseserver import BaseServer, parse_address

CERTIFICATE = pathlib.Path(__file__).parent / "data" / "localhost.crt"
KEY = CERTIFICATE.with_suffix(".key")


def echo(sock, _address):
    while data := sock.recv(4096):
        sock.sendall(data)


@pytest.fixture
def serve():
    started = []

    def start(*args, kind=server.StreamServer, **kwargs):
        one = kind(("127.0.0.1", 0), *args, **kwargs)
        one.start()
        started.append(one)
        return one

    yield start
    for one in started:
        one.stop(timeout=1)


def connect(to):
    return socket.create_connection((to.server_host, to.server_port), timeout=30)


def test_echo_to_many(serve):
    one = serve(echo)

    def talk(number):
        with connect(one) as sock:
            sock.sendall(b"%d" % number)
            return sock.recv(100)

    talkers = [gevent.spawn(talk, number) for number in range(50)]
    assert [talker.get(timeout=30) for talker in talkers] == [b"%d" % n for n in range(50)]


def test_handler_ends_the_connection(serve):
    one = serve(lambda sock, address: sock.sendall(b"bye"))
    with connect(one) as sock:
        assert sock.makefile("rb").read() == b"bye"


def test_error_of_a_handler_is_its_own(serve, capfd):
    calls = []

    def handle(sock, address):
        calls.append(address)
        if len(calls) == 1:
            raise ZeroDivisionError
        sock.sendall(b"ok")

    one = serve(handle)
    with connect(one) as sock:
        assert sock.recv(10) == b""
    with connect(one) as sock:
        assert sock.recv(10) == b"ok"
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_pool_limits(serve):
    running, peak = [], []

    def handle(sock, address):
        running.append(address)
        peak.append(len(running))
        gevent.sleep(0.005)
        running.remove(address)
        sock.sendall(b".")

    one = serve(handle, spawn=2)
    assert isinstance(one.pool, pool.Pool)

    def talk():
        with connect(one) as sock:
            return sock.recv(1)

    talkers = [gevent.spawn(talk) for _ in range(10)]
    assert [talker.get(timeout=30) for talker in talkers] == [b"."] * 10
    assert max(peak) == 2


@pytest.mark.parametrize("spawn", ["default", gevent.spawn_raw, None], ids=str)
def test_ways_to_spawn(serve, spawn):
    one = serve(lambda sock, address: sock.send(b"."), spawn=spawn)
    with connect(one) as sock:
        assert sock.recv(1) == b"."


def test_stop_kills_what_does_not_end(serve):
    ended = []

    def handle(sock, address):
        try:
            gevent.sleep(60)
        finally:
            ended.append(address)

    one = serve(handle, spawn=5)
    with connect(one) as sock:
        gevent.sleep(0.02)
        with gevent.Timeout(30):
            one.stop(timeout=0.01)
        assert len(ended) == 1
        with pytest.raises(OSError):
            sock.sendall(b"x")
            assert sock.recv(1) == b""
            raise ConnectionResetError
    assert one.closed
    with pytest.raises(OSError):
        connect(one)


def test_serve_forever():
    one = server.StreamServer(("127.0.0.1", 0), echo)
    keeper = gevent.spawn(one.serve_forever)
    gevent.sleep(0.01)
    assert one.started
    with connect(one) as sock:
        sock.sendall(b"1")
        assert sock.recv(1) == b"1"
    one.stop()
    keeper.get(timeout=30)


def test_context_manager_and_given_socket():
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(5)
    with server.StreamServer(sock, echo) as one:
        one.start()
        assert one.address == sock.getsockname()
        with connect(one) as client:
            client.send(b"2")
            assert client.recv(1) == b"2"


def test_accept_error_makes_it_pause(serve, capfd):
    class Tired(server.StreamServer):
        min_delay = 0.01
        failures = 2

        def do_read(self):
            if self.failures:
                self.failures -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().do_read()

    one = serve(echo, kind=Tired)
    with connect(one) as sock:
        sock.sendall(b"at last")
        assert sock.recv(100) == b"at last"
    assert capfd.readouterr().err.count("failed with OSError") == 2
    assert one.delay == one.min_delay


@pytest.mark.ours  # upstream leaves the socket to the collector
def test_address_in_use_is_named(serve):
    one = serve(echo)
    other = server.StreamServer((one.server_host, one.server_port), echo)
    with pytest.raises(OSError, match=str(one.server_port)) as info:
        other.start()
    assert info.value.errno == errno.EADDRINUSE

@pytest.mark.ours
@pytest.mark.parametrize("kind", [server.StreamServer, server.DatagramServer])
def test_a_port_that_a_killed_ring_still_holds_is_waited_for(kind, monkeypatch):
    from gevent import _bind

    holder = std.socket(type=std.SOCK_DGRAM if kind is server.DatagramServer else std.SOCK_STREAM)
    with holder:
        holder.bind(("127.0.0.1", 0))
        if kind is server.StreamServer:
            holder.listen()
        address = holder.getsockname()
        address = holder.getsockname()
        pauses = []

        def pause(seconds):
            pauses.append(seconds)
            if len(pauses) == 3:
                holder.close()

        monkeypatch.setattr(_bind, "_sleep", pause)
        monkeypatch.setattr(_bind, "PATIENCE", 1000)
        made = kind(address, lambda *args: None)
        if gevent.get_hub().loop.name != "uring":
            with pytest.raises(OSError, match="in use"):
                made.init_socket()
            assert not pauses
            return
        made.init_socket()
        assert len(pauses) == 3 and made.address == address
        made.close()
        monkeypatch.setattr(_bind, "PATIENCE", 0)
        with std.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(OSError, match="in use"):
                server.StreamServer(taken.getsockname(), print).init_socket()


def test_bad_arguments():
    with pytest.raises(TypeError, match="'handle' must be provided"):
        server.StreamServer(("127.0.0.1", 0))
    with pytest.raises(ValueError):
        server.StreamServer("no port here: x", echo)

    class Never(server.StreamServer):
        max_accept = 0

    with pytest.raises(ValueError, match="max_accept"):
        Never(("127.0.0.1", 0), echo)
    assert issubclass(server.StreamServer, BaseServer)


@pytest.mark.parametrize(
    "text, family, address",
    [
        (("h", 1), socket.AF_INET, ("h", 1)),
        (("::1", 1), socket.AF_INET6, ("::1", 1)),
        (("", 1), socket.AF_INET6, ("", 1)),
        (80, socket.AF_INET6, ("", 80)),
        ("80", socket.AF_INET6, ("", 80)),
        (":80", socket.AF_INET, ("", 80)),
        ("*:80", socket.AF_INET, ("", 80)),
        ("h:80", socket.AF_INET, ("h", 80)),
        ("[::1]:80", socket.AF_INET6, ("::1", 80)),
    ],
)
def test_addresses(text, family, address):
    assert parse_address(text) == (family, address)


@pytest.mark.parametrize("arguments", ["context", "files"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls(serve, arguments):
    if arguments == "context":
        context = ssl.SSLContext(std_ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE, KEY)
        one = serve(echo, ssl_context=context)
    else:
        one = serve(echo, certfile=str(CERTIFICATE), keyfile=str(KEY))
    assert one.ssl_enabled
    client = ssl.SSLContext(std_ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(CERTIFICATE)
    with connect(one) as plain, client.wrap_socket(plain, server_hostname="localhost") as sock:
        sock.sendall(b"secret")
        assert sock.recv(100) == b"secret"


def test_datagrams():
    class Echo(server.DatagramServer):
        def handle(self, data, address):
            self.sendto(data[::-1], address)

    with Echo(("127.0.0.1", 0)) as one:
        one.start()
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.settimeout(30)
            sock.connect(one.address)
            for text in (b"abc", b"x" * 1000):
                sock.send(text)
                assert sock.recv(8192) == text[::-1]


def test_repr(serve):
    one = serve(echo)
    assert "StreamServer" in repr(one)
    assert f"address=127.0.0.1:{one.server_port}" in repr(one)
    assert "handle=<function echo" in str(one)


@pytest.mark.parametrize("make", [server.StreamServer, pywsgi.WSGIServer])
def test_nobody_listens_once_the_server_has_stopped(make):
    address = ("127.0.0.1", 0)
    for _ in range(20):
        one = make(address, lambda *_: [])
        one.start()
        address = one.address
        # It has to have accepted before: then the kernel is asked for the next one.
        socket.create_connection(address, timeout=30).close()
        gevent.sleep(0.001)
        one.stop()
        # Blocking, so that the loop does not turn in between.
        with pytest.raises(ConnectionRefusedError):
            std.create_connection(address, timeout=30)


def test_nobody_listens_once_a_socket_that_was_selected_is_closed():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = listener.getsockname()
        assert select.select([listener], [], [], 0.01) == ([], [], [])
    with pytest.raises(ConnectionRefusedError):
        std.create_connection(address, timeout=30)


@pytest.mark.ours
@pytest.mark.parametrize("kind", [server.StreamServer, pywsgi.WSGIServer])
def test_a_listener_is_closed_once(kind):
    """A second close may be of a descriptor that somebody else has by then."""
    closed = []

    class Listener(std.socket):
        def close(self):
            closed.append(self.fileno())
            super().close()

    with Listener() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        fd = listener.fileno()
        one = kind(listener, lambda *_: None)
        one.start()
        one.stop()
        one.close()
        assert closed == [fd]
