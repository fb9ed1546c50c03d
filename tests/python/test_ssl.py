"""TLS sockets: handshakes, reading and writing, ends, callbacks, contexts imported too early."""

import gc
import pathlib
import ssl as std_ssl
import struct
import subprocess
import sys
import textwrap

import pytest
from scripts import lines_of

import gevent
from gevent import socket, ssl
from gevent.event import Event

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
    return serving.get(timeout=30), wrapped


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
    assert reader.get(timeout=30) == b"hello"
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
    assert [reader.get(timeout=30) == data for reader in readers] == [True, True]


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
    reader.join(timeout=30)
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


def drip(data, sock, stopped):
    """Send *data* byte by byte until *stopped*; return whether that was before the end."""
    for i in range(len(data)):
        if stopped.is_set():
            return True
        sock.sendall(data[i : i + 1])
        gevent.sleep(0.01)
    return False


@pytest.mark.ours
def test_drops_do_not_stretch_the_timeout_of_a_handshake():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        hello.do_handshake()
    one, other = socket.socketpair()
    stopped = Event()
    with one, other:
        one.settimeout(0.2)
        dripping = gevent.spawn(drip, outgoing.read(), other, stopped)
        with pytest.raises(TimeoutError, match="handshake operation timed out"):
            server_context().wrap_socket(one, server_side=True)
        stopped.set()
        assert dripping.get(timeout=30)


@pytest.mark.ours
def test_drops_do_not_stretch_the_timeout_of_a_read():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    one, other = socket.socketpair()
    serving = gevent.spawn(server_context().wrap_socket, one, server_side=True)
    while True:
        try:
            client.do_handshake()
            break
        except ssl.SSLWantReadError:
            other.sendall(outgoing.read())
            incoming.write(other.recv(65536))
    other.sendall(outgoing.read())
    stopped = Event()
    with serving.get(timeout=30) as reading, other:
        client.write(b"x" * 1000)
        reading.settimeout(0.2)
        dripping = gevent.spawn(drip, outgoing.read(), other, stopped)
        with pytest.raises(TimeoutError, match="read operation timed out"):
            reading.recv(10)
        stopped.set()
        assert dripping.get(timeout=30)


def test_unverified_certificate():
    strict = ssl.SSLContext(std_ssl.PROTOCOL_TLS_CLIENT)
    a, b = socket.socketpair()
    serving = gevent.spawn(server_context().wrap_socket, a, server_side=True)
    with pytest.raises(ssl.SSLCertVerificationError):
        strict.wrap_socket(b, server_hostname="localhost")
    with pytest.raises(OSError):
        serving.get(timeout=30)
    a.close()
    b.close()


@pytest.mark.parametrize("politely", [True, False])
def test_end(pair, politely):
    one, other = pair
    if politely:
        leaver = gevent.spawn(other.unwrap)
        assert one.recv(10) == b""
        one.unwrap()
        assert leaver.get(timeout=30) is other
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


@pytest.mark.parametrize("waiting", [True, False])
def test_a_reset_is_met_by_the_read_and_not_before(waiting):
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    plain, _ = listener.accept()
    listener.close()
    serving = gevent.spawn(server_context().wrap_socket, plain, server_side=True)
    reading = client_context().wrap_socket(
        client, server_hostname="localhost", suppress_ragged_eofs=False
    )
    with reading, serving.get(timeout=30) as writing:
        writing.sendall(b"once")
        assert reading.recv(10) == b"once"
        reader = gevent.spawn(reading.recv, 10)
        if waiting:
            gevent.idle()
        writing.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writing.close()
        with pytest.raises((std_ssl.SSLEOFError, ConnectionResetError)) as raised:
            reader.get(timeout=30)
        # OpenSSL's own end of file would mean that the reset has got lost.
        assert "UNEXPECTED_EOF_WHILE_READING" not in str(raised.value)


def test_sending_much_leaves_nothing_behind(pair):
    one, other = pair
    data = b"x" * 4_000_000

    def send():
        sender = gevent.spawn(one.sendall, data)
        left = len(data)
        while left:
            left -= len(other.recv(65536))
        sender.get(timeout=30)

    send()
    gc.collect()
    before = sys.getallocatedblocks()
    send()
    gc.collect()
    # A piece is a record of 16 KiB: there were 245.
    assert sys.getallocatedblocks() - before < 100


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("recv", ("a",)),
        ("recv", (-1,)),
        ("read", (1 << 70,)),
        ("read", (9, b"constant")),
        ("recv_into", (b"constant",)),
        ("recv_into", (bytearray(9), "a")),
    ],
)
def test_wrong_arguments_are_refused_before_there_is_data(pair, method, arguments):
    one, other = pair
    one.sendall(b"some")
    assert other.recv(10) == b"some"
    with gevent.Timeout(30), pytest.raises((TypeError, ValueError, OverflowError)):
        getattr(other, method)(*arguments)


def test_none_means_the_default(pair):
    one, other = pair
    for read in (other.recv, other.read, lambda n: other.recv_into(None, n)):
        one.sendall(b"some")
        assert read(None) == b"some"


def test_close_wakes_the_reader(pair):
    one, _ = pair
    reader = gevent.spawn(one.recv, 1)
    for _ in range(3):
        gevent.sleep(0)
    one.close()
    with pytest.raises((OSError, ValueError)):
        reader.get(timeout=30)


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
                served, _ = acceptor.get(timeout=30)
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
        served = serving.get(timeout=30)
        reader = gevent.spawn(served.recv, 10)
        wrapped.sendall(b"hello")
        assert reader.get(timeout=30) == b"hello"
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


class Counting:
    """Stands before a TLS object and counts the exceptions of its reads."""

    def __init__(self, tls):
        self.tls = tls
        self.wanted = 0

    def __getattr__(self, name):
        return getattr(self.tls, name)

    def read(self, *args):
        try:
            return self.tls.read(*args)
        except std_ssl.SSLWantReadError:
            self.wanted += 1
            raise


@pytest.mark.ours
def test_waiting_makes_no_exceptions(pair):
    one, other = pair
    # The client's tickets come with the first message.
    one.sendall(b"x")
    assert other.recv(10) == b"x"
    one._sslobj, other._sslobj = counts = [Counting(end._sslobj) for end in pair]

    def echo():
        while data := one.recv(4096):
            one.sendall(data)

    echoing = gevent.spawn(echo)
    for n in range(1, 100):
        other.sendall(b"m" * n)
        assert other.recv(4096) == b"m" * n
        if n == 1:
            # It is not known of a new object whether it holds something.
            counts[0].wanted = counts[1].wanted = 0
    assert [c.wanted for c in counts] == [0, 0]
    echoing.kill()


def test_pieces_of_a_record(pair):
    one, other = pair
    one.sendall(bytes(range(250)))
    got = b"".join(other.recv(7) for _ in range(30))
    buffer = bytearray(60)
    n = other.recv_into(buffer, 40)
    got += buffer[:n]
    assert got == bytes(range(250))
    with gevent.Timeout(0.01, False):
        other.recv(1)
        pytest.fail("there is nothing more")
    large = bytes(100_000)
    sending = gevent.spawn(one.sendall, memoryview(large))
    size = 0
    while size < len(large):
        size += len(other.recv(50_000))
    sending.get(timeout=30)
    assert size == len(large)


def test_subclasses_are_asked():
    calls = []

    class Own(ssl.SSLSocket):
        def _checkClosed(self, msg=None):
            calls.append("check")

        def read(self, *args):
            calls.append("read")
            return super().read(*args)

        def send(self, *args, **kwargs):
            calls.append("send")
            return super().send(*args, **kwargs)

    server = server_context()
    server.sslsocket_class = Own
    one, other = shake_hands(server=server)
    with one, other:
        del calls[:]
        one.sendall(b"abc")
        assert "send" in calls
        other.sendall(b"def")
        assert one.recv(3) == b"def"
        buffer = bytearray(3)
        other.sendall(b"ghi")
        assert one.recv_into(buffer) == 3
        assert calls.count("read") == 2
        assert "check" in calls


def test_non_blocking(pair):
    one, other = pair
    other.setblocking(False)
    with pytest.raises(std_ssl.SSLWantReadError):
        other.recv(10)
    one.sendall(b"now")
    gevent.socket.wait_read(other.fileno())
    while True:
        try:
            assert other.recv(10) == b"now"
            break
        except std_ssl.SSLWantReadError:
            gevent.sleep(0.001)
    sent = 0
    while True:
        n = other.send(bytes(10_000))
        if not n:
            break
        sent += n
    assert sent > 0
    with pytest.raises(OSError):
        other.sendall(bytes(10_000))


def test_unwrap_and_plain_text_behind_it(pair):
    one, other = pair

    def leave():
        plain = one.unwrap()
        plain.sendall(b"plain")

    leaving = gevent.spawn(leave)
    assert other.recv(10) == b""
    plain = other.unwrap()
    assert plain.recv(10) == b"plain"
    leaving.get(timeout=30)
    with pytest.raises(ValueError, match="unwrapped"):
        other.read(1)


def test_files_and_sendfile(pair, tmp_path):
    one, other = pair
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 1000)
    with one.makefile("rwb") as ours, other.makefile("rb") as theirs:
        ours.write(b"line\n")
        ours.flush()
        assert theirs.readline() == b"line\n"
        with path.open("rb") as file:
            sending = gevent.spawn(one.sendfile, file)
            assert theirs.read(256_000) == path.read_bytes()
            assert sending.get(timeout=30) == 256_000


def test_sessions_bindings_and_client_certificates():
    server, client = server_context(), client_context()
    server.verify_mode = std_ssl.CERT_REQUIRED
    server.load_verify_locations(CERTIFICATE)
    client.load_cert_chain(CERTIFICATE, KEY)
    one, other = shake_hands(server, client)
    with one, other:
        assert one.getpeercert()["subject"] == ((("commonName", "localhost"),),)
        assert not other.session_reused
        one.sendall(b"x")
        assert other.recv(1) == b"x"
        session = other.session
    one, other = shake_hands(server, client, session=session)
    with one, other:
        assert other.session_reused
        binding = other.get_channel_binding("tls-unique")
        assert binding == one.get_channel_binding("tls-unique")


def test_memory_bio():
    ends = []
    for context, server_side in ((server_context(), True), (client_context(), False)):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else "localhost"
        tls = context.wrap_bio(incoming, outgoing, server_side=server_side, server_hostname=name)
        ends.append((tls, incoming, outgoing))
    (server, to_server, from_server), (client, to_client, from_client) = ends
    done = set()
    while len(done) < 2:
        for tls in (client, server):
            try:
                tls.do_handshake()
                done.add(tls)
            except ssl.SSLWantReadError:
                pass
            to_server.write(from_client.read())
            to_client.write(from_server.read())
    client.write(b"in memory")
    to_server.write(from_client.read())
    assert server.read() == b"in memory"


HTTPS = """
    from gevent import monkey; monkey.patch_all()
    import sys
    import gevent, requests, urllib3
    from gevent.pywsgi import WSGIServer

    def application(environ, start_response):
        body = environ["wsgi.input"].read() or b"hello"
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    certificate, key = {certificate!r}, {key!r}
    server = WSGIServer(("127.0.0.1", 0), application, certfile=certificate, keyfile=key, log=None)
    server.start()
    url = "https://localhost:%d/" % server.server_port
    with requests.Session() as session:
        session.verify = certificate
        session.trust_env = False
        print(session.get(url).text)
        large = b"x" * 300_000
        asking = [gevent.spawn(session.post, url, data=large) for _ in range(10)]
        print(all(g.get().content == large for g in asking))
    with urllib3.PoolManager(ca_certs=certificate) as pool:
        print(pool.request("GET", url).data.decode())
    server.stop()
"""


@pytest.mark.ours
def test_requests_and_urllib3():
    pytest.importorskip("requests")
    source = HTTPS.format(certificate=str(CERTIFICATE), key=str(KEY))
    assert lines_of(source) == ["hello", "True", "hello"]
