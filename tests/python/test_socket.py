"""Sockets: waiting, closing, timeouts, sending it all, lookups, and what a kill may not lose."""

import errno
import gc
import io
import os
import select
import socket as std
import subprocess
import sys
import time
import warnings

import pytest

import gevent
from gevent import socket
from gevent.exceptions import ConcurrentObjectUseError


@pytest.fixture
def pair():
    a, b = socket.socketpair()
    yield a, b
    a.close()
    b.close()


@pytest.fixture
def listener():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(64)
        yield sock


def until_parked(greenlet):
    """Let *greenlet* run until it waits for I/O."""
    for _ in range(3):
        gevent.sleep(0)
    assert not greenlet.ready()


def fill(sock):
    """Send until the peer's buffer is full; returns how much that was."""
    limit = sock.gettimeout()
    sock.setblocking(False)
    sent = 0
    with pytest.raises(BlockingIOError):
        while True:
            sent += sock.send(b"x" * 65536)
    sock.settimeout(limit)
    return sent


@pytest.mark.parametrize("busy", [False, True])
def test_a_read_that_ends_at_passed_descriptors_is_not_the_last(pair, busy):
    a, b = pair
    others = [gevent.spawn(gevent.sleep, 0) for _ in range(3)]
    reader = gevent.spawn(a.recv, 100)
    until_parked(reader)
    if busy:

        def turn():
            while not reader.ready():
                gevent.sleep(0)

        others.append(gevent.spawn(turn))
    std.send_fds(b._sock, [b"one"], [b.fileno()])
    b.sendall(b"two")
    assert reader.get(timeout=30) == b"one"
    reader = gevent.spawn(a.recv, 100)
    if busy:
        others.append(gevent.spawn(turn))
    assert reader.get(timeout=30) == b"two"
    gevent.joinall(others, raise_error=True)


def test_others_run_while_one_waits(pair):
    a, b = pair
    reader = gevent.spawn(a.recv, 100)
    until_parked(reader)
    b.sendall(b"hello")
    assert reader.get(timeout=30) == b"hello"


def test_end_of_stream(pair):
    a, b = pair
    reader = gevent.spawn(a.recv, 100)
    until_parked(reader)
    b.close()
    assert reader.get(timeout=30) == b""
    assert a.recv(1) == b""


@pytest.mark.parametrize("how", ["kill", "timeout"])
def test_interrupted_recv_loses_nothing(pair, how):
    a, b = pair
    data = bytes(range(256)) * 64
    got = bytearray()

    def read():
        while len(got) < len(data):
            got.extend(a.recv(1000))

    def read_impatiently():
        while len(got) < len(data):
            with gevent.Timeout(0.0005, False):
                read()

    reader = gevent.spawn(read_impatiently if how == "timeout" else read)
    for start in range(0, len(data), 256):
        b.send(data[start : start + 256])
        if start % 1024 == 0:
            gevent.sleep(0)
        if how == "kill" and start % 2048 == 0:
            reader.kill()
            reader = gevent.spawn(read)
    reader.join(timeout=30)
    assert bytes(got) == data


def test_interrupted_accept_loses_no_connection(listener):
    address = listener.getsockname()
    served = []

    def serve():
        while True:
            sock, _ = listener.accept()
            served.append(sock)

    server = gevent.spawn(serve)
    clients = []
    for number in range(40):
        client = socket.socket()
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.connect(address)
        clients.append(client)
        if number % 3 == 0:
            server.kill()
            server = gevent.spawn(serve)
        if number % 4 == 0:
            gevent.sleep(0)
    with gevent.Timeout(30):
        while len(served) < len(clients):
            gevent.sleep(0.001)
    server.kill()
    names = {client.getsockname() for client in clients}
    assert {sock.getpeername() for sock in served} == names
    for sock in served + clients:
        sock.close()


def test_interrupted_send_can_be_resumed(pair):
    a, b = pair
    filled = fill(a)
    writer = gevent.spawn(a.send, b"more")
    until_parked(writer)
    writer.kill()
    # Nothing of it went out.
    got = 0
    b.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            got += len(b.recv(1 << 20))
    assert got == filled


def test_close_wakes_the_reader(pair):
    a, _ = pair
    reader = gevent.spawn(a.recv, 1)
    until_parked(reader)
    a.close()
    with pytest.raises(OSError, match="closed in another greenlet") as info:
        reader.get(timeout=30)
    assert info.value.errno == errno.EBADF


def test_close_wakes_the_acceptor(listener):
    acceptor = gevent.spawn(listener.accept)
    until_parked(acceptor)
    listener.close()
    with pytest.raises(OSError) as info:
        acceptor.get(timeout=30)
    assert info.value.errno == errno.EBADF


@pytest.mark.parametrize("name", ["recv", "send", "getsockname", "accept"])
def test_closed_socket_refuses(name):
    sock = socket.socket()
    sock.close()
    sock.close()
    assert sock.fileno() == -1
    assert sock.closed
    args = {"recv": (1,), "send": (b"x",)}.get(name, ())
    with pytest.raises(OSError) as info:
        getattr(sock, name)(*args)
    assert info.value.errno == errno.EBADF


def test_shutdown_wakes_the_reader(pair):
    a, _ = pair
    reader = gevent.spawn(a.recv, 1)
    until_parked(reader)
    a.shutdown(socket.SHUT_RD)
    try:
        assert reader.get(timeout=30) == b""
    except OSError as ex:
        assert ex.errno == errno.EBADF


def test_two_readers_are_one_too_many(pair):
    a, b = pair
    first = gevent.spawn(a.recv, 1)
    until_parked(first)
    with pytest.raises(ConcurrentObjectUseError):
        a.recv(1)
    b.send(b"1")
    assert first.get(timeout=30) == b"1"


def test_a_reader_and_a_writer_are_not(pair):
    a, b = pair
    filled = fill(a)
    reader, writer = gevent.spawn(a.recv, 1), gevent.spawn(a.sendall, b"y" * 100000)
    until_parked(reader)
    until_parked(writer)
    b.send(b"1")
    assert reader.get(timeout=30) == b"1"
    got = bytearray()
    while len(got) < filled + 100000:
        got += b.recv(1 << 20)
    writer.get(timeout=30)
    assert got == b"x" * filled + b"y" * 100000


def test_timeout(pair):
    a, _ = pair
    a.settimeout(0.02)
    began = time.monotonic()
    with pytest.raises(socket.timeout, match="timed out"):
        a.recv(1)
    assert time.monotonic() - began > 0.015
    # It is still good for something.
    pair[1].send(b"z")
    assert a.recv(1) == b"z"


def test_timeout_bounds_all_of_sendall(pair):
    a, b = pair
    a.settimeout(0.1)

    def sip():
        while True:
            b.recv(4096)
            gevent.sleep(0.01)

    drinker = gevent.spawn(sip)
    began = time.monotonic()
    with pytest.raises(socket.timeout):
        a.sendall(b"x" * (64 << 20))
    # It ended at all: with a limit for each piece it would have gone on to the last one.
    assert time.monotonic() - began > 0.09
    drinker.kill()


@pytest.mark.parametrize("value, error", [(-1, ValueError), ("1", TypeError), ([], TypeError)])
def test_bad_timeouts(pair, value, error):
    with pytest.raises(error):
        pair[0].settimeout(value)


def test_blocking_flags(pair):
    a, _ = pair
    assert a.getblocking()
    assert a.gettimeout() is None
    a.setblocking(False)
    assert not a.getblocking()
    assert a.gettimeout() == 0.0
    with pytest.raises(BlockingIOError) as info:
        a.recv(1)
    assert info.value.errno in (errno.EAGAIN, errno.EWOULDBLOCK)
    a.setblocking(True)
    assert a.gettimeout() is None


def test_default_timeout():
    socket.setdefaulttimeout(12.5)
    try:
        with socket.socket() as sock:
            assert sock.gettimeout() == 12.5
    finally:
        socket.setdefaulttimeout(None)


@pytest.mark.parametrize(
    "data",
    [b"bytes", bytearray(b"bytes"), memoryview(b"bytes")[1:], b""],
    ids=["bytes", "bytearray", "memoryview", "nothing"],
)
def test_sendall_takes_buffers(pair, data):
    a, b = pair
    assert not a.sendall(data)
    a.shutdown(socket.SHUT_WR)
    assert b.makefile("rb").read() == bytes(data)


def test_sendall_of_much(pair):
    a, b = pair
    data = os.urandom(1 << 16) * 64
    writer = gevent.spawn(a.sendall, data)
    got = bytearray()
    while len(got) < len(data):
        got += b.recv(1 << 18)
    writer.get(timeout=30)
    assert got == data


def test_recv_into(pair):
    a, b = pair
    b.send(b"abcdef")
    buffer = bytearray(4)
    assert a.recv_into(buffer) == 4
    assert buffer == b"abcd"
    assert a.recv_into(buffer, 1) == 1
    assert buffer == b"ebcd"
    assert a.recv(10, socket.MSG_PEEK) == b"f"
    assert a.recv(10) == b"f"


def test_datagrams():
    with socket.socket(type=socket.SOCK_DGRAM) as a, socket.socket(type=socket.SOCK_DGRAM) as b:
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
        reader = gevent.spawn(a.recvfrom, 100)
        until_parked(reader)
        b.sendto(b"one", a.getsockname())
        assert reader.get(timeout=30) == (b"one", b.getsockname())
        # Several at once: none may be taken for the rest of another.
        for number in range(5):
            b.sendto(b"%d" % number, a.getsockname())
        assert [a.recv(100) for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


def test_descriptors_travel(pair):
    a, b = pair
    r, w = os.pipe()
    reader = gevent.spawn(socket.recv_fds, b, 10, 2)
    until_parked(reader)
    socket.send_fds(a, [b"pipe"], [w])
    data, fds, _flags, _address = reader.get(timeout=30)
    assert data == b"pipe"
    os.write(fds[0], b"through")
    assert os.read(r, 100) == b"through"
    for fd in (r, w, *fds):
        os.close(fd)


def _registered(pair):
    """A greenlet's read of the first has waited once, so that the loop knows it."""
    a, b = pair
    reader = gevent.spawn(a.recv, 10)
    until_parked(reader)
    b.sendall(b"first")
    assert reader.get(timeout=30) == b"first"


def _read_all(sock, count):
    """*count* bytes in reads that ask for more than there is."""
    got = b""
    with gevent.Timeout(10):
        while len(got) < count:
            got += sock.recv(100)
    return got


def test_a_read_that_stops_at_descriptors_leaves_the_rest_readable(pair):
    _registered(pair)
    a, b = pair
    r, w = os.pipe()
    try:
        # A read ends behind what a descriptor came with, so it is short, with more to come.
        for text in (b"one", b"two", b"three"):
            socket.send_fds(b, [text], [r])
        b.sendall(b"four")
        gevent.sleep(0.01)
        assert _read_all(a, 15) == b"onetwothreefour"
    finally:
        os.close(r)
        os.close(w)


@pytest.mark.skipif(not hasattr(std, "SO_PASSCRED"), reason="credentials are Linux's")
def test_a_read_that_stops_at_credentials_leaves_the_rest_readable(pair):
    _registered(pair)
    a, b = pair
    a.setsockopt(std.SOL_SOCKET, std.SO_PASSCRED, 1)
    b.sendall(b"mine")
    # Another process has other credentials, which a read does not mix.
    code = f"import os; os.write({b.fileno()}, b'theirs')"
    subprocess.run([sys.executable, "-c", code], pass_fds=[b.fileno()], check=True, timeout=30)
    b.sendall(b"mine")
    gevent.sleep(0.01)
    assert _read_all(a, 14) == b"minetheirsmine"


def test_a_read_that_stops_at_urgent_data_leaves_the_rest_readable(pair):
    _registered(pair)
    a, b = pair
    b.sendall(b"before")
    try:
        b.send(b"!", std.MSG_OOB)
    except OSError as e:
        pytest.skip(f"no urgent data on local streams: {e}")
    b.sendall(b"after")
    gevent.sleep(0.01)
    assert _read_all(a, 11) == b"beforeafter"


def test_connect_and_accept(listener):
    acceptor = gevent.spawn(listener.accept)
    with socket.create_connection(listener.getsockname(), timeout=30) as client:
        served, address = acceptor.get(timeout=30)
        assert address == client.getsockname()
        assert client.gettimeout() == 30
        served.sendall(b"hi")
        assert client.recv(10) == b"hi"
        served.close()


def test_connect_to_nobody(listener):
    address = listener.getsockname()
    listener.close()
    gevent.sleep(0.01)
    with pytest.raises(ConnectionRefusedError) as info:
        socket.create_connection(address)
    assert info.value.errno == errno.ECONNREFUSED
    with socket.socket() as sock:
        assert sock.connect_ex(address) == errno.ECONNREFUSED


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with 3.11")
def test_all_errors(listener):
    address = listener.getsockname()
    listener.close()
    gevent.sleep(0.01)
    with pytest.raises(ExceptionGroup) as info:  # noqa: F821
        socket.create_connection(address, all_errors=True)
    assert [type(ex) for ex in info.value.exceptions] == [ConnectionRefusedError]


def test_makefile_keeps_the_descriptor(pair):
    a, b = pair
    file = a.makefile("rwb")
    a.close()
    file.write(b"still here\n")
    file.flush()
    assert b.recv(100) == b"still here\n"
    b.sendall(b"line\n")
    assert file.readline() == b"line\n"
    file.close()
    assert b.recv(1) == b""


def test_detach_and_dup(pair):
    a, b = pair
    copy = a.dup()
    fd = a.detach()
    assert a.fileno() == -1
    with socket.socket(fileno=fd) as again:
        assert again.family == socket.AF_UNIX
        again.sendall(b"1")
        copy.sendall(b"2")
        assert b.recv(1) + b.recv(1) == b"12"
    copy.close()
    assert b.recv(1) == b""


def test_sendfile(pair, tmp_path):
    a, b = pair
    path = tmp_path / "data"
    path.write_bytes(b"0123456789" * 5000)
    with path.open("rb") as file:
        writer = gevent.spawn(a.sendfile, file, 5, 40000)
        got = bytearray()
        while len(got) < 40000:
            got += b.recv(65536)
        assert writer.get(timeout=30) == 40000
        assert file.tell() == 40005
    assert got == (b"0123456789" * 5000)[5:40005]
    with pytest.raises(ValueError):
        a.sendfile(io.StringIO("text"), 0, -1)


def test_numbers_are_resolved():
    found = socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
    assert found == std.getaddrinfo("127.0.0.1", 80, type=std.SOCK_STREAM)
    assert isinstance(found[0][0], socket.AddressFamily)
    assert socket.gethostbyname("127.0.0.1") == "127.0.0.1"
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("256.256.256.256", 80, flags=socket.AI_NUMERICHOST)


def test_lookups_let_others_run(monkeypatch):
    import _socket

    def slow(*args, **kwargs):
        until = time.monotonic() + 30
        while len(ticks) <= 2 and time.monotonic() < until:
            time.sleep(0.001)
        return [(2, 1, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(_socket, "getaddrinfo", slow)
    ticks = []

    def tick():
        while True:
            ticks.append(1)
            gevent.sleep(0.005)

    ticker = gevent.spawn(tick)
    assert socket.getaddrinfo("somewhere.invalid", 0)[0][4] == ("127.0.0.1", 0)
    ticker.kill()
    assert len(ticks) > 2


def test_offers_the_standard_names():
    for name in set(std.__all__) - {"CAPI"}:
        assert hasattr(socket, name), name
    with socket.socket() as sock:
        assert repr(sock).startswith("<gevent._socket3.socket at 0x")


def test_socket_cannot_be_pickled(pair):
    import pickle

    with pytest.raises(TypeError):
        pickle.dumps(pair[0])


def test_wait_functions(pair):
    a, b = pair
    socket.wait_write(a.fileno(), timeout=30)
    with pytest.raises(socket.timeout):
        socket.wait_read(a.fileno(), timeout=0.01)
    with pytest.raises(KeyError):
        socket.wait_read(a.fileno(), timeout=0.01, timeout_exc=KeyError)
    b.send(b"1")
    socket.wait_read(a.fileno(), timeout=30)
    socket.wait_readwrite(a.fileno(), timeout=30)


def test_connect_to_a_full_queue(tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)

        def connect():
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
                return sock.recv(1)

        clients = [gevent.spawn(connect) for _ in range(10)]
        gevent.sleep(0.05)
        for _ in clients:
            conn, _ = listener.accept()
            conn.sendall(b"x")
            conn.close()
        assert [client.get(timeout=30) for client in clients] == [b"x"] * 10


@pytest.mark.ours
def test_create_server_is_cooperative():
    with socket.create_server(("127.0.0.1", 0), backlog=5) as listener:
        assert isinstance(listener, socket.socket)
        accepting = gevent.spawn(listener.accept)
        gevent.sleep(0)
        with socket.create_connection(listener.getsockname()) as client:
            accepted, _ = accepting.get(timeout=30)
            with accepted:
                client.sendall(b"x")
                assert accepted.recv(1) == b"x"
    if socket.has_dualstack_ipv6():
        with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
            port = listener.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)):
                listener.accept()[0].close()


def test_a_forgotten_socket_is_warned_of():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        forgotten = socket.socket()
        del forgotten
        gc.collect()
    texts = [str(w.message) for w in caught if w.category is ResourceWarning]
    assert len(texts) == 1 and texts[0].startswith("unclosed <socket")


@pytest.mark.ours
def test_connecting_to_a_number_asks_nobody():
    class Refusing:
        def __getattr__(self, name):
            raise AssertionError(f"{name} was asked for")

    resolver = gevent.get_hub().resolver
    pool, resolver.pool = resolver.pool, Refusing()
    try:
        for host in ("127.0.0.1", "::1"):
            assert socket.getaddrinfo(host, 80, 0, socket.SOCK_STREAM)[0][4][0] == host
    finally:
        resolver.pool = pool


@pytest.mark.parametrize("timeout", [0, 0.5, None])
def test_to_receive_nothing_is_to_do_nothing(pair, timeout):
    a, b = pair
    a.settimeout(timeout)
    assert a.recv(0) == b"" and a.recv_into(bytearray(0)) == 0
    b.send(b"kept")
    assert a.recv(0) == b"" and a.recv(10) == b"kept"


def test_to_receive_nothing_leaves_a_datagram():
    a, b = socket.socketpair(type=socket.SOCK_DGRAM)
    with a, b:
        b.send(b"kept")
        assert a.recv(0) == b"" and a.recv(10) == b"kept"


def test_urgent_data_is_read_from_an_empty_stream(listener):
    with socket.create_connection(listener.getsockname(), timeout=30) as client:
        server = listener.accept()[0]
        with server:
            server.settimeout(30)
            client.sendall(b"x")
            # A short read, after which the stream is known to be empty.
            assert server.recv(100) == b"x"
            client.send(b"!", socket.MSG_OOB)
            urgent = select.poll()
            urgent.register(server.fileno(), select.POLLPRI)
            assert urgent.poll(5000)
            assert server.recv(1, socket.MSG_OOB) == b"!"


@pytest.mark.parametrize("call", [("recv", -1), ("recv_into", None), ("send", "text")])
def test_a_closed_socket_says_so_whatever_the_arguments(call):
    sock = socket.socket()
    sock.close()
    name, argument = call
    with pytest.raises(OSError) as caught:
        getattr(sock, name)(argument)
    assert caught.value.errno == errno.EBADF


def has_waited(sock):
    """Have *sock* known to the loop."""
    limit = sock.gettimeout()
    sock.settimeout(0.01)
    with pytest.raises(TimeoutError):
        sock.accept() if sock.getsockopt(std.SOL_SOCKET, std.SO_ACCEPTCONN) else sock.recv(1)
    sock.settimeout(limit)


def test_detaching_one_object_leaves_others_on_the_descriptor_alone(pair):
    a, b = pair
    has_waited(a)
    other = socket.socket(fileno=a.fileno())
    fired = []
    watcher = gevent.get_hub().loop.io(a.fileno(), 1)
    watcher.start(lambda: (fired.append(1), watcher.stop()))
    reader = gevent.spawn(other.recv, 10)
    until_parked(reader)
    a.detach()
    b.sendall(b"one")
    assert reader.get(timeout=30) == b"one"
    assert fired
    watcher.close()
    reader = gevent.spawn(other.recv, 10)
    until_parked(reader)
    b.sendall(b"two")
    assert reader.get(timeout=30) == b"two"
    other.close()


@pytest.mark.parametrize("how", ["server", "below"])
def test_an_object_whose_descriptor_was_closed_below_it_leaves_the_number_alone(listener, how):
    from gevent.server import StreamServer

    has_waited(listener)
    number = listener.fileno()
    if how == "server":
        server = StreamServer(listener, lambda sock, address: None)
        server.start()
        server.stop()
        del server
        with pytest.raises(OSError, match="Bad file descriptor"):
            listener.recv(10)
        stale = None
    else:
        stale = socket.socket(fileno=os.dup(number))
        has_waited(stale)
        number = stale.fileno()
        os.close(stale._sock.detach())
    a, b = socket.socketpair()
    if a.fileno() != number:
        a, b = b, a
    assert a.fileno() == number
    reader = gevent.spawn(a.recv, 10)
    until_parked(reader)
    del stale
    gc.collect()
    gevent.sleep(0.01)
    b.sendall(b"hi")
    assert reader.get(timeout=30) == b"hi"
    a.close()
    b.close()


def test_a_timeout_below_a_nanosecond_is_a_timeout(pair):
    pair[0].settimeout(1e-10)
    with pytest.raises(TimeoutError):
        pair[0].recv(1)
