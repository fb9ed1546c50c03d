"""Cooperative files: modes and buffers, waiting, closing; each kind alike. And the resolvers."""

import array
import errno
import io
import os
import socket as std_socket
import time

import pytest

import gevent
from gevent import fileobject, resolver
from gevent.fileobject import FileObject, FileObjectBlock, FileObjectPosix, FileObjectThread
from gevent.resolver import _addresses, _hostsfile

KINDS = [FileObjectPosix, FileObjectThread, FileObjectBlock]
COOPERATIVE = KINDS[:2]


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            pass


def test_default_kind():
    assert FileObject in KINDS
    assert fileobject.__all__


@pytest.mark.parametrize("kind", KINDS)
def test_regular_file(kind, tmp_path):
    path = tmp_path / "file"
    with kind(path, "w", encoding="utf-8") as file:
        assert file.write("eins\nzwei\n") == 10
        file.writelines(["drei\n", "vier"])
    with kind(str(path), "r", encoding="utf-8") as file:
        assert file.readline() == "eins\n"
        assert list(file) == ["zwei\n", "drei\n", "vier"]
    with kind(path, "rb") as file:
        assert file.seekable()
        assert file.seek(5) == 5
        assert file.read(4) == b"zwei"
        assert file.tell() == 9
        assert file.mode == "rb"
    with kind(path, "ab") as file:
        file.write(b"!")
    with kind(path, "rb+") as file:
        file.seek(-1, 2)
        assert file.read() == b"!"
    with pytest.raises(FileExistsError):
        kind(path, "x")


@pytest.mark.parametrize("kind", COOPERATIVE)
def test_others_run_while_one_reads(kind, pipe):
    r, w = pipe
    reading, writing = kind(r, "rb"), kind(w, "wb")
    reader = gevent.spawn(reading.readline)
    gevent.sleep(0.01)
    assert not reader.ready()
    writing.write(b"line\n")
    writing.flush()
    assert reader.get(timeout=30) == b"line\n"
    writing.close()
    assert reading.read() == b""
    reading.close()


@pytest.mark.parametrize("kind", COOPERATIVE)
def test_much_through_a_pipe(kind, pipe):
    data = os.urandom(1 << 20)

    def write():
        with kind(pipe[1], "wb") as file:
            file.write(data)

    writer = gevent.spawn(write)
    with kind(pipe[0], "rb") as file:
        assert file.read() == data
    writer.get(timeout=30)


@pytest.mark.parametrize("kind", KINDS)
def test_after_the_end(kind, pipe):
    file = kind(pipe[1], "wb")
    assert not file.closed
    file.close()
    file.close()
    assert file.closed
    with pytest.raises(OSError):
        file.write(b"x")
    with pytest.raises(OSError):
        os.fstat(pipe[1])


@pytest.mark.parametrize("kind", KINDS)
def test_descriptor_can_be_kept(kind, pipe):
    kind(pipe[1], "wb", closefd=False).close()
    kind(pipe[1], "wb", close=False).close()
    os.write(pipe[1], b"x")
    assert os.read(pipe[0], 9) == b"x"


def test_close_wakes_the_reader(pipe):
    file = FileObjectPosix(pipe[0], "rb", 0)
    reader = gevent.spawn(file.read, 10)
    gevent.sleep(0.01)
    file.close()
    with pytest.raises(OSError):
        reader.get(timeout=30)


@pytest.mark.ours
def test_all_of_an_array_is_written(pipe):
    numbers = array.array("q", range(50_000))
    with FileObjectPosix(pipe[0], "rb") as reading:
        with FileObjectPosix(pipe[1], "wb", 0, atomic_write=True) as writing:
            writer = gevent.spawn(writing.write, numbers)
            assert reading.read(8 * len(numbers)) == numbers.tobytes()
            writer.get(timeout=30)


@pytest.mark.ours
def test_ready_and_closed_at_once(pipe):
    file = FileObjectPosix(pipe[0], "rb", 0)

    def close():
        gevent.sleep(0.01)
        file.close()

    closer = gevent.spawn(close)
    reader = gevent.spawn(file.read, 10)
    gevent.sleep(0)
    # Both are due when the loop looks next; either may be first.
    os.write(pipe[1], b"x")
    time.sleep(0.02)
    closer.get(timeout=30)
    try:
        assert reader.get(timeout=30) == b"x"
    except OSError as ex:
        assert ex.errno == errno.EBADF


def test_unbuffered(pipe):
    r, w = pipe
    with FileObjectPosix(r, "rb", 0) as reading, FileObjectPosix(w, "wb", 0) as writing:
        assert writing.write(b"abc") == 3
        assert reading.read(100) == b"abc"
        buffer = bytearray(2)
        writing.write(b"xyz")
        assert reading.readinto(buffer) == 2
        assert buffer == b"xy"
        with pytest.raises(io.UnsupportedOperation):
            writing.fileio.read(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "mode, arguments, error",
    [
        ("rw", {}, ValueError),
        ("rr", {}, ValueError),
        ("q", {}, ValueError),
        ("b", {}, ValueError),
        ("rbt", {}, ValueError),
        ("rb", {"encoding": "utf-8"}, ValueError),
        ("rb", {"errors": "strict"}, ValueError),
        ("rb", {"newline": ""}, ValueError),
        ("wU", {}, ValueError),
        (1, {}, TypeError),
        ("r", {"encoding": 1}, TypeError),
        ("r", {"errors": 1}, TypeError),
        ("r", {"buffering": "x"}, TypeError),
        ("r", {"buffering": 1, "bufsize": 1}, TypeError),
        ("r", {"closefd": True, "close": True}, TypeError),
    ],
)
def test_bad_arguments(kind, mode, arguments, error, pipe):
    with pytest.raises(error):
        kind(pipe[0], mode, **arguments)


def test_thread_locks(pipe):
    with pytest.raises(TypeError):
        FileObjectThread(pipe[0], lock=object())
    with FileObjectThread(pipe[1], "wb", lock=False) as file:
        assert file.write(b"x") == 1
        assert "threadpool" in repr(file)


def test_addresses():
    for text in ("1.2.3.4", b"127.0.0.1", "255.255.255.255"):
        assert _addresses.is_ipv4_addr(text)
        assert not _addresses.is_ipv6_addr(text)
    for text in ("::", "::1", b"fe80::1%eth0", "fe80::1%lo", "::ffff:1.2.3.4", "1:2:3:4:5:6:7:8"):
        assert _addresses.is_ipv6_addr(text)
        assert not _addresses.is_ipv4_addr(text)
    for text in (
        "",
        None,
        1,
        "host",
        "1.2.3",
        "1.2.3.256",
        "1.2.3.4.5",
        ":::",
        "1::2::3",
    ):
        assert not _addresses.is_ipv4_addr(text)
        assert not _addresses.is_ipv6_addr(text)


def test_hosts_file(tmp_path):
    path = tmp_path / "hosts"
    path.write_text(
        "# comment\n127.0.0.1 localhost  # more\n\n10.0.0.1\tHost.example host\n"
        "::1 localhost ip6-localhost\nfe80::1 link\nnonsense x\n10.0.0.2\n"
    )
    hosts = _hostsfile.HostsFile(str(path))
    pairs = sorted(hosts.iter_all_host_addr_pairs())
    assert pairs == [
        ("host", "10.0.0.1"),
        ("host.example", "10.0.0.1"),
        ("ip6-localhost", "::1"),
        ("localhost", "127.0.0.1"),
        ("localhost", "::1"),
    ]
    assert hosts.aliases == {"host": "host.example", "ip6-localhost": "localhost"}
    assert hosts.reverse["1.0.0.10.in-addr.arpa"] == "host.example"
    path.write_text("10.0.0.9 new\n")
    os.utime(path, (time.time() + 5, time.time() + 5))
    assert list(hosts.iter_all_host_addr_pairs()) == [("new", "10.0.0.9")]


@pytest.mark.parametrize("name", ["thread", "blocking"])
def test_resolvers(name):
    module = __import__("gevent.resolver." + name, fromlist=["Resolver"])
    one = module.Resolver()
    assert one.gethostbyname("127.0.0.1") == "127.0.0.1"
    assert one.getaddrinfo("127.0.0.1", 80, 0, std_socket.SOCK_STREAM) == std_socket.getaddrinfo(
        "127.0.0.1", 80, 0, std_socket.SOCK_STREAM
    )
    assert one.getnameinfo(("127.0.0.1", 80), 3) == ("127.0.0.1", "80")
    assert one.gethostbyname_ex("127.0.0.1")[2] == ["127.0.0.1"]
    with pytest.raises(std_socket.gaierror):
        one.getaddrinfo("300.1.1.1", 80, flags=std_socket.AI_NUMERICHOST)
    one.close()


def test_own_resolver():
    asked = []

    class Mine(resolver.AbstractResolver):
        def _getaddrinfo(self, host_bytes, port, family, socktype, proto, flags):
            asked.append(host_bytes)
            port, _types = resolver._lookup_port(port, socktype)
            return [(2, 1, 6, "mine", ("1.2.3.4", port))]

        def _gethostbyaddr(self, ip_address_bytes):
            return (ip_address_bytes.decode(), [], [])

    mine = Mine()
    assert mine.gethostbyname("some.host") == "1.2.3.4"
    assert mine.gethostbyname_ex("some.host") == ("mine", [], ["1.2.3.4"])
    assert mine.getaddrinfo("some.host", "80", socktype=1)[0][4] == ("1.2.3.4", 80)
    assert mine.gethostbyname("127.0.0.1") == "127.0.0.1"
    assert asked == [b"some.host"] * 3
    assert mine.gethostbyaddr("10.0.0.1") == ("10.0.0.1", [], [])
    with pytest.raises(TypeError):
        mine.getaddrinfo(3, 80)
    with pytest.raises(TypeError):
        mine.getnameinfo("x", 0)


def test_a_pipe_is_closed_at_once_after_a_read_was_given_up():
    reader, writer = os.pipe()
    try:
        with FileObject(reader, "rb", 0) as file:
            with gevent.Timeout(0.01, False):
                file.read(1)
        # The loop does not turn in between.
        with pytest.raises(BrokenPipeError):
            os.write(writer, b"x")
    finally:
        os.close(writer)
