"""An echo server that speaks TLS.

tls_echo.py CERTIFICATE KEY [PORT]        (PEM files)

Try it with ``openssl s_client -quiet -connect 127.0.0.1:16443``.
"""

import sys

from gevent import ssl
from gevent.server import StreamServer


def echo(conn, _address):
    while data := conn.recv(65536):
        conn.sendall(data)


def main(certificate, key, port=16443):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    StreamServer(("127.0.0.1", int(port)), echo, ssl_context=context).serve_forever()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: tls_echo.py CERTIFICATE KEY [PORT]")
    main(*sys.argv[1:4])
