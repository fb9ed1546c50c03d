"""TLS sockets: handshakes, reading and writing, ends, callbacks, contexts imported too early."""

import pathlib
import ssl as std_ssl
import subprocess
import sys
import textwrap

import pytest

import gevent
from gevent import socket, ssl

CERTIFICATE = pathlib.Path(__file__).parent / "data" / "localhost.crt"
KEY = CERTIFICATE.with_suffix(".key")


def server_context():
    context = ssl.SSLContext(std_ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE, KEY)
    return context


def client_context():
    context = ssl.SSLContext(std_ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(CERTIFICATE)
    return context


def shake_hands(server=None, client=None, **client_arguments):
    """``(server side, client side)``, connected by a pair of sockets."""
    a, b = socket.socketpair()
    serving = gevent.spawn((server or server_context()).wrap_socket, a, server_side=True)
    client_arguments.setdefault("server_hostname", "localhost")
    wrapped = (client or client_context()).wrap_socket(b, **client_arguments)
    return serving.get(timeout=5), wrapped


@pytest.fixture
def pair():
    one, other = shake_hands()
    with one, other:
        yield one, other


def test_talk(pair):
    one, other = pair
    assert isinstance(one, ssl.SSLSocket)
    assert one.version() == other.version() == "TLSv1.3"
    assert other.getpeercert()["subject"] == ((("commonName", "localhost"),),)
    assert one.getpeercert() is None
    reader = gevent.spawn(one.recv, 100)
    gevent.sleep(0)
    other.sendall(b"hello")
    assert reader.get(timeout=5) == b"hello"
    buffer = bytearray(3)
    one.send(b"abcd")
    assert other.recv_into(buffer) == 3
    assert other.pending() == 1
    assert bytes(buffer) + other.read(10) == b"abcd"


def test_much_both_ways(pair):
    one, other = pair
    data = bytes(range(256)) * 8192

    def send(sock):
        sock.sendall(data)

    def receive(sock):
        got = bytearray()
        while len(got) < len(data):
            got += sock.recv(70000)
        return bytes(got)

    for job in (gevent.spawn(send, one), gevent.spawn(send, other)):
        job.rawlink(lambda done: None)
    readers = [gevent.spawn(receive, one), gevent.spawn(receive, other)]
    assert [reader.get(timeout=20) == data for reader in readers] == [True, True]


def test_interrupted_read_loses_nothing(pair):
    one, other = pair
    data = bytes(range(256)) * 40
    got = bytearray()

    def read():
        while len(got) < len(data):
            got.extend(one.recv(1000))

    reader = gevent.spawn(read)
    for start in range(0, len(data), 256):
        other.send(data[start : start + 256])
        if start % 512 == 0:
            gevent.sleep(0)
        if start % 1024 == 0:
            reader.kill()
            reader = gevent.spawn(read)
    reader.join(timeout=5)
    assert bytes(got) == data


def test_timeouts(pair):
    one, other = pair
    one.settimeout(0.02)
    with pytest.raises(socket.timeout, match="read operation timed out"):
        one.recv(1)
    other.send(b"x")
    assert one.recv(1) == b"x"
    one.settimeout(0)
    with pytest.raises(ssl.SSLWantReadError):
        one.recv(1)


def test_handshake_times_out():
    a, b = socket.socketpair()
    with a, b:
        b.settimeout(0.02)
        with pytest.raises(socket.timeout, match="handshake operation timed out"):
            client_context().wrap_socket(b, server_hostname="localhost")


def test_unverified_certificate():
    strict = ssl.SSLContext(std_ssl.PROTOCOL_TLS_CLIENT)
    a, b = socket.socketpair()
    serving = gevent.spawn(server_context().wrap_socket, a, server_side=True)
    with pytest.raises(ssl.SSLCertVerificationError):
        strict.wrap_socket(b, server_hostname="localhost")
    with pytest.raises(OSError):
        serving.get(timeout=5)
    a.close()
    b.close()


@pytest.mark.parametrize("politely", [True, False])
def test_end(pair, politely):
    one, other = pair
    if politely:
        leaver = gevent.spawn(other.unwrap)
        assert one.recv(10) == b""
        one.unwrap()
        assert leaver.get(timeout=5) is other
        other.sendall(b"in clear")
        assert one.recv(100) == b"in clear"
    else:
        other.close()
        try:
            assert one.recv(10) == b""
        except ConnectionResetError:
            # What the peer had not read, such as session tickets, turns the end into a reset.
            pass
        with pytest.raises(OSError):
            for _ in range(100):
                one.sendall(b"x" * 10000)


def test_close_wakes_the_reader(pair):
    one, _ = pair
    reader = gevent.spawn(one.recv, 1)
    for _ in range(3):
        gevent.sleep(0)
    one.close()
    with pytest.raises((OSError, ValueError)):
        reader.get(timeout=5)


def test_forbidden(pair):
    one, _ = pair
    for call, error in [
        (lambda: one.recv(1, socket.MSG_PEEK), ValueError),
        (lambda: one.send(b"x", 1), ValueError),
        (lambda: one.sendall(b"x", 1), ValueError),
        (lambda: one.sendto(b"x", ("127.0.0.1", 1)), ValueError),
        (lambda: one.recvfrom(1), ValueError),
        (lambda: one.sendmsg([b"x"]), NotImplementedError),
        (lambda: one.recvmsg(1), NotImplementedError),
        (one.dup, NotImplementedError),
    ]:
        with pytest.raises(error):
            call()
    assert one.recv(0) == b""
    with socket.socket() as plain, pytest.raises(ValueError):
        server_context().wrap_socket(plain, server_side=True, server_hostname="x")


def test_callbacks_get_the_socket():
    seen = []
    context = server_context()

    def choose(sock, name, initial):
        seen.append((type(sock), name, initial is context))
        sock.context = server_context()

    context.sni_callback = choose
    assert context.sni_callback is choose
    one, other = shake_hands(context)
    with one, other:
        assert seen == [(ssl.SSLSocket, "localhost", True)]
        assert one.context is not context
        other.send(b"1")
        assert one.recv(1) == b"1"


def test_alpn():
    server, client = server_context(), client_context()
    server.set_alpn_protocols(["h2", "http/1.1"])
    client.set_alpn_protocols(["http/1.1"])
    one, other = shake_hands(server, client)
    with one, other:
        assert one.selected_alpn_protocol() == other.selected_alpn_protocol() == "http/1.1"


def test_listener_wraps_what_it_accepts():
    with socket.socket() as plain:
        plain.bind(("127.0.0.1", 0))
        plain.listen(5)
        address = plain.getsockname()
        with server_context().wrap_socket(plain, server_side=True) as listener:
            acceptor = gevent.spawn(listener.accept)
            with client_context().wrap_socket(socket.socket(), server_hostname="localhost") as sock:
                sock.connect(address)
                served, _ = acceptor.get(timeout=5)
                with served:
                    served.sendall(b"1")
                    assert sock.recv(1) == b"1"


@pytest.mark.ours
def test_server_certificate():
    with socket.socket() as plain:
        plain.bind(("127.0.0.1", 0))
        plain.listen(5)

        def serve():
            sock, _ = plain.accept()
            server_context().wrap_socket(sock, server_side=True).close()

        serving = gevent.spawn(serve)
        text = ssl.get_server_certificate(plain.getsockname(), std_ssl.PROTOCOL_TLS_CLIENT)
        serving.join()
    assert text.split() == CERTIFICATE.read_text().split()


EARLY = """
    import ssl, socket as plain_socket
    from ssl import SSLContext as Early
    made_before = Early(ssl.PROTOCOL_TLS_CLIENT)
    class Sub(Early):
        pass
    import warnings
    warnings.simplefilter("ignore")
    from gevent import monkey
    monkey.patch_all()
    import gevent, socket
    certificate, key = {certificate!r}, {key!r}

    def options(context):
        # Each setter once called itself for ever.
        context.options |= ssl.OP_NO_COMPRESSION
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.maximum_version = ssl.TLSVersion.TLSv1_3
        return context

    server = options(Early(ssl.PROTOCOL_TLS_SERVER))
    server.load_cert_chain(certificate, key)
    for client in (made_before, Sub(ssl.PROTOCOL_TLS_CLIENT), ssl.create_default_context()):
        a, b = socket.socketpair()
        serving = gevent.spawn(server.wrap_socket, a, server_side=True)
        wrapped = options(client).wrap_socket(b)
        served = serving.get(timeout=5)
        reader = gevent.spawn(served.recv, 10)
        wrapped.sendall(b"hello")
        assert reader.get(timeout=5) == b"hello"
        print(type(wrapped).__module__)
    # Native sockets are still wrapped natively.
    native = monkey.get_original("socket", "socket")()
    with Early(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(
        native, server_hostname="x", do_handshake_on_connect=False
    ) as sock:
        print(type(sock).__module__)
"""


@pytest.mark.ours
def test_contexts_imported_before_patching():
    code = textwrap.dedent(EARLY).format(certificate=str(CERTIFICATE), key=str(KEY))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.split() == ["gevent.ssl"] * 3 + ["ssl"], done.stderr
