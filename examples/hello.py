"""The smallest HTTP server: one greenlet for every connection, on a monkey-patched socket.

hello.py [PORT]
"""

import sys

import gevent
from gevent import monkey

monkey.patch_all()

import socket  # noqa: E402  (after the patch, as a program's own imports come)


def server(port):
    s = socket.socket()
    s.bind(("", port))
    s.listen(1000)
    while True:
        conn, _addr = s.accept()
        gevent.spawn(handle_client, conn)


def handle_client(conn):
    try:
        conn.recv(1024)
        conn.send(b"HTTP/1.1 200 OK\r\n\r\nHello World")
    finally:
        conn.close()


if __name__ == "__main__":
    gevent.spawn(server, int(sys.argv[1]) if len(sys.argv) > 1 else 8080).join()
