"""An echo server on gevent.server.StreamServer: each connection gets a greenlet and its bytes back.

echo.py [PORT]
"""

import sys

from gevent.server import StreamServer


def echo(conn, _address):
    while data := conn.recv(65536):
        conn.sendall(data)


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 16000
    StreamServer(("127.0.0.1", port), echo).serve_forever()
