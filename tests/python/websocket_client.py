"""A WebSocket client for tests that sends whatever it is told to, right or wrong."""

import base64
import os
import struct

from http_client import Client

KEY = base64.b64encode(b"0123456789abcdef").decode()

TEXT, BINARY, CLOSE, PING, PONG, MORE = 1, 2, 8, 9, 10, 0


def frame(opcode, payload=b"", fin=True, mask=True, rsv=0):
    """A frame of a client."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if mask else 0
    if len(payload) < 126:
        head = struct.pack("!BB", first, bit | len(payload))
    elif len(payload) < 65536:
        head = struct.pack("!BBH", first, bit | 126, len(payload))
    else:
        head = struct.pack("!BBQ", first, bit | 127, len(payload))
    if not mask:
        return head + payload
    key = os.urandom(4)
    size = len(payload)
    pad = (key * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
    return head + key + masked.to_bytes(size, "big")


class WebSocketClient(Client):
    """Connects and does the handshake."""

    def __init__(self, address, *fields, path="/", without=(), version="13"):
        super().__init__(address)
        head = {
            "Host": "a",
            "Upgrade": "websocket",
            "Connection": "keep-alive, Upgrade",
            "Sec-WebSocket-Key": KEY,
            "Sec-WebSocket-Version": version,
        }
        lines = [f"{name}: {value}" for name, value in head.items() if name not in without]
        self.handshake = self.ask([f"GET {path} HTTP/1.1", *lines, *fields])

    def frame(self):
        """The next frame: its first byte, its opcode and its payload."""
        first, second = self.rfile.read(2)
        assert not second & 0x80, "a server does not mask"
        length = second & 0x7F
        if length == 126:
            length = struct.unpack("!H", self.rfile.read(2))[0]
        elif length == 127:
            length = struct.unpack("!Q", self.rfile.read(8))[0]
        self.first = first
        return first & 15, self.rfile.read(length)

    def close_code(self):
        """The code of the Close frame that comes next."""
        opcode, payload = self.frame()
        assert opcode == CLOSE, (opcode, payload)
        return struct.unpack("!H", payload[:2])[0] if payload else None
