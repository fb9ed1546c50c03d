"""A WSGI application on gevent.pywsgi.

wsgi.py [PORT]
"""

import sys

from gevent.pywsgi import WSGIServer


def application(environ, start_response):
    body = b"Hello World"
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 16080
    WSGIServer(("127.0.0.1", port), application, log=None).serve_forever()
