"""Clients that mean harm: aborts, floods and nonsense, over HTTP, WebSockets and TLS, on loopback.

    attacks.py [--loop NAME] [--quick] [--only TEXT] [--seed N]

Bounded. During and after each attack an ordinary client of the same server is served, and in the
end no descriptor of the attackers' connections is left.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import struct
import sys

import common

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HELLO = bytes.fromhex("16030100c8010000c40303") + b"r" * 60


def connected(server):
    import socket

    conn = socket.create_connection(server.address)
    conn.settimeout(20)
    return conn


def reset(conn):
    import socket

    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conn.close()


def said(server, data, then=reset):
    """Sends some bytes on a connection of their own, and leaves."""
    conn = connected(server)
    try:
        conn.sendall(data)
    except OSError:
        pass  # It has had enough.
    finally:
        then(conn)


def drained(server, data):
    """Sends it all and reads to the end, which has to come."""
    with contextlib.closing(connected(server)) as conn:
        try:
            conn.sendall(data)
            conn.shutdown(1)
            while conn.recv(65536):
                pass
        except TimeoutError:
            raise
        except OSError:
            pass


def close(conn):
    conn.close()


HTTP = {
    "leaves after the connection": [b""],
    "leaves in a head": [GET[:9], GET[:-2], b"G", b"\r\n\r\n"],
    "leaves in a body": [POST + b"Content-Length: 1000\r\n\r\n" + b"x" * 10],
    "leaves in a chunk": [
        POST + b"Transfer-Encoding: chunked\r\n\r\nff\r\nx",
        POST + b"Transfer-Encoding: chunked\r\n\r\nf",
    ],
    "leaves before the answer": [GET, GET * 50],
    "says nonsense": [
        b"\0" * 300,
        b"\xff" * 300,
        b"GET\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    "sends too much of a head": [
        b"GET / HTTP/1.1\r\nA: " + b"a" * 400_000,
        GET[:-2] + b"A: b\r\n" * 9000,
    ],
    "sends too long a line": [b"GET /" + b"a" * 400_000],
    "contradicts itself": [
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n",
    ],
}
WEBSOCKET = {
    "no mask": [b"\x82\x03abc"],
    "reserved bits": [b"\xf2\x80\0\0\0\0"],
    "unknown kind": [b"\x83\x80\0\0\0\0"],
    "no text": [b"\x81\x82\0\0\0\0\xff\xfe"],
    "too large": [
        b"\x82\xff" + struct.pack("!Q", 1 << 62) + b"\0\0\0\0",
        b"\x82\xff" + b"\xff" * 12,
    ],
    "many pings": [b"\x89\x80\0\0\0\0" * 5000],
    "endless parts": [b"\x02\x81\0\0\0\0x" + b"\x00\x81\0\0\0\0x" * 5000],
    "large ping": [b"\x89\xfe\x01\x00\0\0\0\0" + b"x" * 256],
    "odd close": [b"\x88\x81\0\0\0\0x", b"\x88\x82\0\0\0\0\0\1"],
    "leaves in a frame": [b"\x82\xfe\xff\xff\0\0\0\0x"],
}
TLS = {
    "no TLS": [GET, b"\0" * 500],
    "leaves in the hello": [HELLO[:3], HELLO],
    "too large a record": [b"\x16\x03\x01\xff\xff" + b"x" * 70_000],
    "an alert first": [b"\x15\x03\x01\x00\x02\x02\x28"],
    "many empty records": [b"\x16\x03\x03\x00\x00" * 2000],
    "data first": [b"\x17\x03\x03\x00\x10" + b"x" * 16],
}


def either(work):
    """Talks through a WebSocket where it has one, and answers requests."""

    def application(environ, start_response):
        ws = environ.get("wsgi.websocket")
        if ws is None:
            return work.application(environ, start_response)
        while (message := ws.receive()) is not None:
            ws.send(message)
        return []

    return application


def served(work, kind):
    """A server of that kind."""
    from gevent.pywsgi import WSGIServer
    from gevent.websocket import WebSocketHandler

    settings = {"http": {}, "handler": {"handler_class": work.Handler}}
    settings["websocket"] = {"handler_class": WebSocketHandler}
    files = {"certfile": "localhost.crt", "keyfile": "localhost.key"}
    settings["tls"] = {name: str(work.DATA / file) for name, file in files.items()}
    quiet = {"log": None, "error_log": work.Quiet()}
    return work.started(WSGIServer(("127.0.0.1", 0), either(work), **quiet, **settings[kind]))


def attacks(quick):
    """(kind of server, name, what to send)"""
    for kind in ("http", "handler"):
        for name, messages in HTTP.items():
            yield kind, name, messages
        yield kind, "mutations", None
        yield kind, "waits", [b"", GET[:9], POST + b"Content-Length: 9\r\n\r\n"]
    for name, messages in WEBSOCKET.items():
        yield "websocket", name, [UPGRADE + message for message in messages]
    for name, messages in TLS.items():
        yield "tls", name, messages
    yield "tls", "waits", [b"", HELLO]


def mutations(chance, count):
    whole = [GET * 2, POST + b"Content-Length: 5\r\n\r\nhello", UPGRADE]
    whole.append(POST + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n")
    for _ in range(count):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data))
            how = chance.randrange(3)
            if how == 0:
                odd = chance.choice(b"\0\r\n :;,\t0f\xff")
                data[at] = odd if chance.random() < 0.7 else data[at] ^ 32
            elif how == 1:
                del data[at : at + chance.randint(1, 5)]
            else:
                data[at:at] = data[at : at + chance.randint(1, 9)]
            data = data or bytearray(b"\n")
        yield bytes(data)


def attack(work, gevent, kind, name, messages, options, chance):
    def ordinary():
        if kind == "tls":
            plain = connected(server)
            with plain, work.client_context().wrap_socket(plain) as conn:
                conn.sendall(GET)
                work.same(conn.recv(12), b"HTTP/1.1 200", "an ordinary client")
        else:
            work.requests(server)

    times = 5 if options.quick else 40
    with served(work, kind) as server:
        held = []
        try:
            ordinary()
            if not messages:
                messages, times = list(mutations(chance, times * 10)), 2
            for data in messages:
                common.report(at=repr(data[:60]))
                if name == "waits":
                    # They stay, and say nothing more.
                    held += [connected(server) for _ in range(times)]
                    for conn in held[-times:]:
                        conn.sendall(data)
                    continue
                for then in (reset, close):
                    gs = [gevent.spawn(said, server, data, then) for _ in range(times)]
                    gevent.joinall(gs, raise_error=True)
                gs = [gevent.spawn(drained, server, data) for _ in range(2)]
                gevent.joinall(gs, raise_error=True)
            ordinary()
        finally:
            for conn in held:
                conn.close()
        ordinary()
    if kind == "websocket":
        work.websocket()


def child(options) -> None:
    from gevent import monkey

    monkey.patch_all()
    import gevent
    import work

    gevent.get_hub().exception_stream = None

    def fds():
        return len(os.listdir("/proc/self/fd"))

    gevent.sleep(0)
    before = None
    for number, (kind, name, messages) in enumerate(attacks(options.quick)):
        step = f"{kind}: {name}"
        chance = random.Random(options.seed + number)
        if number < options.first or options.only not in step:
            continue
        common.report(begin=step, number=number)
        try:
            attack(work, gevent, kind, name, messages, options, chance)
            before = before or fds()
            for attempt in range(200):
                gc.collect()
                if fds() <= before + 2:
                    break
                gevent.sleep(0.001 * attempt)
            else:
                raise work.Wrong(f"{fds()} descriptors instead of {before}")
        except (work.Wrong, Exception) as error:
            common.report(end=repr(error))
        else:
            common.report(end=None)
    common.report(done=True)


def main() -> int:
    options = common.arguments(__doc__.splitlines()[0], seed=1)
    if options.child:
        child(options)
        return 0
    command = common.python("attacks.py", "--child", "all", "--loop", options.loop)
    command += ["--only", options.only, "--seed", options.seed] + ["--quick"] * options.quick
    return common.steps(command, {"GEVENT_LOOP": options.loop}, f"attacks [{options.loop}]").end()


if __name__ == "__main__":
    sys.exit(main())
