"""A WSGI server that runs each connection's requests in a greenlet.

    from gevent.pywsgi import WSGIServer

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"Hello"]

    WSGIServer(("127.0.0.1", 8080), application).serve_forever()

``python -m gevent.pywsgi package.module:application`` runs one from the command line, in several
processes if so told.
"""

from gevent.pywsgi._dates import _MONTHNAME, _WEEKDAYNAME, format_date_time
from gevent.pywsgi._environ import Environ, SecureEnviron, WSGISecureEnviron
from gevent.pywsgi._errors import (
    _BAD_REQUEST_BODY,
    _BAD_REQUEST_HEADERS,
    _BAD_REQUEST_RESPONSE,
    _BAD_REQUEST_STATUS,
    _CONTINUE_RESPONSE,
    _ERRORS,
    _INTERNAL_ERROR_BODY,
    _INTERNAL_ERROR_HEADERS,
    _INTERNAL_ERROR_STATUS,
    _REQUEST_TOO_LONG_RESPONSE,
    _InvalidClientInput,
    _InvalidClientRequest,
)
from gevent.pywsgi._handler import WSGIHandler
from gevent.pywsgi._headers import OldMessage, headers_factory
from gevent.pywsgi._input import Input
from gevent.pywsgi._logs import LoggingLogAdapter, _NoopLog
from gevent.pywsgi._reading import MAX_REQUEST_LINE, unquote_latin1
from gevent.pywsgi._server import WSGIServer

__all__ = [
    "WSGIServer",
    "WSGIHandler",
    "LoggingLogAdapter",
    "Environ",
    "SecureEnviron",
    "WSGISecureEnviron",
]

for _class in (
    Environ,
    SecureEnviron,
    WSGISecureEnviron,
    LoggingLogAdapter,
    Input,
    OldMessage,
    WSGIHandler,
    WSGIServer,
    _InvalidClientInput,
    _InvalidClientRequest,
    _NoopLog,
):
    # What a program sees, pickles and names in its settings.
    _class.__module__ = __name__
del _class
