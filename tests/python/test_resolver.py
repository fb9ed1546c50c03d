"""The resolvers: the native one against a server on loopback, and against the system's."""

import os
import socket as plain
import struct
import time

import pytest
from scripts import lines_of

import gevent
from gevent import socket
from gevent.resolver.thread import Resolver as Threaded

A, CNAME, PTR, AAAA = 1, 5, 12, 28
TTL = struct.pack("!I", 60)


def wire(name):
    labels = name.rstrip(".").split(".")
    return b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"


def record(owner, kind, data):
    return wire(owner) + struct.pack("!HH", kind, 1) + TTL + struct.pack("!H", len(data)) + data


def a(owner, n):
    return record(owner, A, bytes([192, 0, 2, n]))


def aaaa(owner, n):
    return record(owner, AAAA, plain.inet_pton(plain.AF_INET6, f"2001:db8::{n}"))


def message(query, answers=(), code=0, truncated=False):
    flags = 0x8180 | code | (0x0200 if truncated else 0)
    end = query.index(b"\0", 12) + 5
    head = query[:2] + struct.pack("!HHHHH", flags, 1, len(answers), 0, 0)
    return head + query[12:end] + b"".join(answers)


class Server:
    """A DNS server on a loopback port, UDP and TCP, in greenlets."""

    def __init__(self):
        while True:
            self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.udp.bind(("127.0.0.1", 0))
            self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            self.port = self.udp.getsockname()[1]
            self.tcp = socket.socket()
            self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                self.tcp.bind(("127.0.0.1", self.port))
                break
            except OSError:
                self.udp.close()
                self.tcp.close()
        self.tcp.listen(100)
        self.asked = []
        self.slow = 0
        self.greenlets = [gevent.spawn(self._serve_udp), gevent.spawn(self._serve_tcp)]

    def close(self):
        gevent.killall(self.greenlets)
        self.udp.close()
        self.tcp.close()

    def _serve_udp(self):
        while True:
            query, peer = self.udp.recvfrom(2000)
            answer = self._answer(query, tcp=False)
            if answer is not None:
                self.udp.sendto(answer, peer)

    def _serve_tcp(self):
        while True:
            conn, _ = self.tcp.accept()
            self.greenlets.append(gevent.spawn(self._serve_connection, conn))

    def _serve_connection(self, conn):
        with conn, conn.makefile("rb") as stream:
            while head := stream.read(2):
                query = stream.read(struct.unpack("!H", head)[0])
                answer = self._answer(query, tcp=True)
                if answer is not None:
                    conn.sendall(struct.pack("!H", len(answer)) + answer)

    def _answer(self, query, tcp):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += query[at] + 1
        kind = struct.unpack("!H", query[at + 1 : at + 3])[0]
        name = ".".join(labels).lower()
        self.asked.append((name, kind, tcp))
        first = labels[0]
        if name == "7.2.0.192.in-addr.arpa":
            return message(query, [record(name, PTR, wire("seven.test"))])
        if not name.endswith(".test") or name.endswith(".nothere.test"):
            return message(query, code=3)
        if first == "both":
            return message(query, [a(name, 1)] if kind == A else [aaaa(name, 1)])
        if first.startswith("v4"):
            return message(query, [a(name, 4)] if kind == A else [])
        if first == "v6":
            return message(query, [aaaa(name, 6)] if kind == AAAA else [])
        if first == "chain":
            links = [
                record(name, CNAME, wire("middle.test")),
                record("middle.test", CNAME, wire("end.test")),
            ]
            return message(query, [*links, a("end.test", 9)] if kind == A else links)
        if first == "big" and kind == A:
            if not tcp:
                return message(query, truncated=True)
            return message(query, [a(name, n) for n in range(100)])
        if first == "big":
            return message(query)
        if first == "failing":
            return message(query, code=2)
        if first == "garbage":
            return b"\xff" * 40
        if first == "short":
            return query[:5]
        if first == "silent":
            return None
        return message(query, code=3)


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def resolver(server):
    yield native(server)


def native(server, **options):
    from gevent.resolver.native import Resolver

    options = {"timeout": 20, "search": ["search.test"], "hosts": "/nonexistent", **options}
    return Resolver(
        servers=["127.0.0.1"], udp_port=server.port, tcp_port=server.port, **options
    )


def addresses(infos):
    return [info[4][0] for info in infos]


def stream(resolver, host, family=0, flags=0):
    return resolver.getaddrinfo(host, 80, family, socket.SOCK_STREAM, 0, flags)


@pytest.mark.ours
def test_addresses(resolver):
    assert sorted(addresses(stream(resolver, "both.test"))) == ["192.0.2.1", "2001:db8::1"]
    assert addresses(stream(resolver, "both.test", socket.AF_INET6)) == ["2001:db8::1"]
    assert stream(resolver, "v4.test") == [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.4", 80))
    ]
    assert stream(resolver, "v6.test") == [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::6", 80, 0, 0))
    ]
    every = resolver.getaddrinfo("v4.test", "http")
    assert [info[1:3] for info in every] == [(1, 6)]
    assert len(resolver.getaddrinfo("v4.test", 80)) == 3
    mapped = stream(resolver, "v4.test", socket.AF_INET6, socket.AI_V4MAPPED)
    assert addresses(mapped) == ["::ffff:192.0.2.4"]
    assert resolver.gethostbyname("both.test") == "192.0.2.1"
    assert resolver.gethostbyname(b"v4") == "192.0.2.4"


@pytest.mark.ours
def test_names(resolver):
    infos = stream(resolver, "chain.test", 0, socket.AI_CANONNAME)
    assert infos == [(2, 1, 6, "end.test", ("192.0.2.9", 80))]
    found = resolver.gethostbyname_ex("chain.test")
    assert found == ("end.test", ["chain.test", "middle.test"], ["192.0.2.9"])
    assert resolver.gethostbyaddr("192.0.2.7") == ("seven.test", [], ["192.0.2.7"])
    with pytest.raises(socket.herror) as refused:
        resolver.gethostbyaddr("192.0.2.8")
    assert refused.value.args == (1, "Unknown host")
    assert resolver.getnameinfo(("192.0.2.7", 80), 0) == ("seven.test", "http")
    assert resolver.getnameinfo(("192.0.2.8", 80), 0) == ("192.0.2.8", "http")
    with pytest.raises(socket.gaierror) as refused:
        resolver.getnameinfo(("192.0.2.8", 80), socket.NI_NAMEREQD)
    assert refused.value.errno == socket.EAI_NONAME


@pytest.mark.ours
def test_idna_and_search(server, resolver):
    with pytest.raises(socket.gaierror):
        stream(resolver, "bücher.nothere.test")
    assert ("xn--bcher-kva.nothere.test", A, False) in server.asked
    del server.asked[:]
    assert addresses(stream(resolver, "v4")) == ["192.0.2.4"]
    assert {name for name, _, _ in server.asked} == {"v4.search.test"}


@pytest.mark.ours
def test_truncated_answers_come_again_by_tcp(server, resolver):
    assert len(stream(resolver, "big.test")) == 100
    assert ("big.test", A, True) in server.asked
    del server.asked[:]
    only_tcp = native(server, flags=1)
    assert addresses(stream(only_tcp, "v4.test")) == ["192.0.2.4"]
    assert all(tcp for _, _, tcp in server.asked)


@pytest.mark.ours
@pytest.mark.parametrize(
    ("host", "errno"),
    [
        ("unknown.test.", socket.EAI_NONAME),
        ("elsewhere.invalid", socket.EAI_NONAME),
        ("failing.test.", socket.EAI_AGAIN),
        ("garbage.test.", socket.EAI_AGAIN),
        ("short.test.", socket.EAI_AGAIN),
        ("silent.test.", socket.EAI_AGAIN),
    ],
)
def test_refusals(server, host, errno):
    # To those that would be asked again there may never come a right answer.
    timeout = 0.2 if errno == socket.EAI_AGAIN else 30
    resolver = native(server, timeout=timeout, tries=1)
    with pytest.raises(socket.gaierror) as refused:
        stream(resolver, host)
    assert refused.value.errno == errno
    with pytest.raises(socket.gaierror) as refused:
        resolver.gethostbyname(host)
    assert refused.value.errno == errno


@pytest.mark.ours
def test_no_addresses_of_that_family(resolver):
    with pytest.raises(socket.gaierror) as refused:
        stream(resolver, "v4.test.", socket.AF_INET6)
    assert refused.value.errno == socket.EAI_NODATA


@pytest.mark.ours
def test_ares_names_its_errors(server):
    from gevent.resolver.ares import Resolver

    def resolver_of(timeout):
        port = server.port
        return Resolver(
            servers="127.0.0.1", udp_port=port, timeout=timeout, tries=1, hosts="/nonexistent"
        )

    with pytest.raises(socket.herror, match="ARES_ETIMEOUT"):
        resolver_of(0.05).gethostbyname("silent.test.")
    resolver = resolver_of(30)
    assert resolver.gethostbyname("v4.test") == "192.0.2.4"


@pytest.mark.ours
def test_kill_and_timeout_in_the_middle(server, resolver):
    asking = gevent.spawn(stream, resolver, "silent.test.")
    while not server.asked:
        gevent.sleep(0)
    asking.kill()
    assert isinstance(asking.value, gevent.GreenletExit)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.02):
        stream(resolver, "silent.test.")
    asking = gevent.spawn(stream, resolver, "silent.test.")
    gevent.sleep(0.01)
    asking.kill(ValueError("stop"), block=False)
    with pytest.raises(ValueError, match="stop"):
        asking.get()
    assert addresses(stream(resolver, "v4.test")) == ["192.0.2.4"]


@pytest.mark.ours
def test_interrupted_at_random(server, resolver):
    """Whatever moment the kill hits, the next look-up is right."""
    for n in range(200):
        asking = gevent.spawn(stream, resolver, "both.test")
        for _ in range(n % 8):
            gevent.sleep(0)
        asking.kill()
    assert len(stream(resolver, "both.test")) == 2


@pytest.mark.ours
def test_a_thousand_at_once(server, resolver):
    asking = [gevent.spawn(stream, resolver, f"v4-{n}.test", socket.AF_INET) for n in range(1000)]
    gevent.joinall(asking, raise_error=True)
    assert all(addresses(g.value) == ["192.0.2.4"] for g in asking)


@pytest.mark.ours
def test_a_forked_child_asks_for_itself(server, resolver):
    assert stream(resolver, "v4.test")
    asking = gevent.spawn(stream, resolver, "silent.test.")
    gevent.sleep(0)
    read, write = os.pipe()
    pid = gevent.os.fork()
    if pid == 0:
        answer = b"?"
        try:
            # The server's greenlets are copies, on descriptors of the parent.
            gevent.killall(server.greenlets)
            answer = ",".join(addresses(stream(resolver, "both.test"))).encode()
        except BaseException as ex:
            answer = repr(ex).encode()
        finally:
            os.write(write, answer)
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb", 0) as pipe:
        gevent.socket.wait_read(pipe.fileno())
        answer = pipe.read(1000)
    gevent.os.waitpid(pid, 0)
    assert sorted(answer.split(b",")) == [b"192.0.2.1", b"2001:db8::1"], answer
    asking.kill()


@pytest.mark.ours
def test_channel_calls_back(server):
    from gevent.resolver.cares import channel

    asked = channel(
        gevent.get_hub().loop, servers="127.0.0.1", udp_port=server.port, hosts="/nonexistent"
    )
    results = []
    asked.gethostbyname(results.append, "v4.test")
    asked.getaddrinfo(results.append, "unknown.test.", 80)
    while len(results) < 2:
        gevent.sleep(0.001)
    good = [r for r in results if r.successful()]
    assert good[0].get() == ("v4.test", [], ["192.0.2.4"])
    bad = [r for r in results if not r.successful()]
    with pytest.raises(socket.gaierror):
        bad[0].get()
    asked.destroy()


CASES = [
    ("127.0.0.1", 80),
    ("127.0.0.1", "http"),
    ("127.0.0.1", b"80"),
    ("127.0.0.1", None),
    ("127.0.0.1", "no such service"),
    ("127.0.0.1", 80, socket.AF_INET6),
    ("127.0.0.1", 80, socket.AF_INET6, 0, 0, socket.AI_V4MAPPED),
    ("127.0.0.1", 80, 0, socket.SOCK_DGRAM),
    ("127.0.0.1", 80, 0, socket.SOCK_STREAM, socket.IPPROTO_TCP),
    ("127.0.0.1", 80, 0, 77),
    ("127.0.0.1", 80, 99),
    ("127.0.0.1", 80, 0, 0, 0, socket.AI_CANONNAME),
    ("127.0.0.1", 80, 0, 0, 0, 0x40000000),
    ("127.1", 80),
    ("::1", 80),
    ("::1", 80, socket.AF_INET),
    ("fe80::1%lo", 80),
    ("::ffff:127.0.0.1", 80),
    (None, 80),
    (None, 80, 0, socket.SOCK_STREAM, 0, socket.AI_PASSIVE),
    (None, None),
    ("", 80),
    ("localhost", 80),
    ("localhost", 80, socket.AF_INET, socket.SOCK_STREAM, 0, socket.AI_CANONNAME),
    ("localhost", "no such service"),
    ("a" * 64, 80),
    ("a..b", 80),
    (b"\xff\xfe", 80),
    ("x", 80, 0, 0, 0, socket.AI_NUMERICHOST),
    ("x", "http", 0, 0, 0, socket.AI_NUMERICSERV),
    (7, 80),
    ("127.0.0.1", 1.5),
]


def outcome(function, *args):
    try:
        return function(*args)
    except Exception as ex:
        return type(ex), ex.args


@pytest.mark.ours
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_getaddrinfo_as_the_system(case):
    from gevent.resolver.native import Resolver

    ours, theirs = Resolver(), Threaded()
    got = outcome(ours.getaddrinfo, *case)
    wanted = outcome(theirs.getaddrinfo, *case)
    if isinstance(wanted, tuple) and wanted[0] is TypeError:
        # Each in its own words.
        got, wanted = got[0], wanted[0]
    assert got == wanted
    theirs.close()


@pytest.mark.ours
@pytest.mark.parametrize("function", ["gethostbyname", "gethostbyname_ex", "gethostbyaddr"])
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "localhost", "255.255.255.255", "::1", os.uname().nodename]
)
def test_hosts_as_the_system(function, host):
    from gevent.resolver.native import Resolver

    ours = getattr(Resolver(), function)
    assert outcome(ours, host) == outcome(getattr(plain, function), host)


@pytest.mark.ours
@pytest.mark.parametrize("flags", range(32))
@pytest.mark.parametrize("address", [("127.0.0.1", 80), ("::1", 53, 0, 0), ("127.0.0.1", 9)])
def test_getnameinfo_as_the_system(address, flags):
    from gevent.resolver.native import Resolver

    got = outcome(Resolver().getnameinfo, address, flags)
    assert got == outcome(plain.getnameinfo, address, flags)


@pytest.mark.ours
def test_hosts_file(server, tmp_path):
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.50 box.test box nick\n2001:db8::50 box.test\n")
    resolver = native(server, hosts=str(hosts))
    assert addresses(stream(resolver, "nick")) == ["192.0.2.50"]
    found = stream(resolver, "box.test", 0, socket.AI_CANONNAME)
    assert {info[3] for info in found} == {"", "box.test"}
    assert sorted(addresses(found)) == ["192.0.2.50", "2001:db8::50"]
    assert resolver.gethostbyname_ex("box") == ("box.test", ["box", "nick"], ["192.0.2.50"])
    assert resolver.gethostbyaddr("192.0.2.50") == ("box.test", ["box", "nick"], ["192.0.2.50"])
    assert not server.asked
    hosts.write_text("192.0.2.51 nick\n# longer than before, and at another time\n")
    assert addresses(stream(resolver, "nick")) == ["192.0.2.51"]


@pytest.mark.ours
@pytest.mark.parametrize("name", ["native", "ares", "dnspython"])
def test_the_environment_chooses_it(server, name):
    # The child asks; the server is here.
    code = """
        import gevent
        from gevent import monkey; monkey.patch_all()
        import socket
        hub = gevent.get_hub()
        print(type(hub.resolver).__module__, socket.gethostbyname("v4.test"))
    """
    environment = {
        "GEVENT_RESOLVER": name,
        "GEVENT_RESOLVER_NAMESERVERS": "127.0.0.1",
        "GEVENT_RESOLVER_TIMEOUT": "20",
        "GEVENTARES_UDP_PORT": str(server.port),
    }
    lines = gevent.get_hub().threadpool.apply(lines_of, (code,), environment)
    assert lines == [f"gevent.resolver.{name} 192.0.2.4"]


@pytest.mark.ours
def test_threads_are_enough_for_a_dead_server(monkeypatch):
    """Forty look-ups that hang do not hold up the next one, nor the hub's pool."""
    import _socket

    def getaddrinfo(host, *args):
        if host == "hangs":
            time.sleep(0.5)
        return [host]

    monkeypatch.setattr(_socket, "getaddrinfo", getaddrinfo)
    resolver = Threaded()
    begun = time.monotonic()
    stuck = [gevent.spawn(resolver.getaddrinfo, "hangs", 80) for _ in range(40)]
    gevent.sleep(0)
    assert resolver.getaddrinfo("quick", 80) == ["quick"]
    assert gevent.get_hub().threadpool.apply(int) == 0
    assert not any(g.ready() for g in stuck) or time.monotonic() - begun > 0.5
    gevent.joinall(stuck, raise_error=True)
    resolver.close()


@pytest.mark.ours
def test_the_hub_cannot_wait_for_a_look_up(server, resolver):
    failed = []

    def ask():
        try:
            stream(resolver, "v4.test")
        except gevent.exceptions.BlockingSwitchOutError as ex:
            failed.append(ex)

    gevent.get_hub().loop.run_callback(ask)
    gevent.sleep(0.01)
    assert len(failed) == 1
