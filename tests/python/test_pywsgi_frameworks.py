"""PEP 3333 to the letter: `wsgiref.validate` around a bare application, Flask and Django.

The validator looks at the environ, at every call in both directions, and at what is not closed.
"""

import contextlib
import re
from wsgiref.validate import validator

import gevent
import pytest
from gevent import pywsgi
from http_client import Client, serving


class Overridden(pywsgi.WSGIHandler):
    def run_application(self):
        super().run_application()


@pytest.fixture(params=[pywsgi.WSGIHandler, Overridden], ids=["stock", "overridden"])
def ask(request):
    """Serves an application under the validator; gives a function that sends requests to it."""
    with contextlib.ExitStack() as stack:

        def start(application, validate=True):
            if validate:
                application = validator(application)
            server = stack.enter_context(
                serving(application, pywsgi.WSGIServer, handler_class=request.param)
            )
            client = stack.enter_context(Client(server.address))

            def ask(method, path, *fields, body=b"", chunked=False):
                head = [f"{method} {path} HTTP/1.1", "Host: localhost:8000", *fields]
                if chunked:
                    head.append("Transfer-Encoding: chunked")
                    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
                elif body:
                    head.append(f"Content-Length: {len(body)}")
                answer = client.ask(head, body, method)
                if answer.fields.get("connection") == "close":
                    raise AssertionError((answer.status, answer.body))
                return answer

            ask.server = server
            return ask

        yield start
        # What the validator finds is raised in the application's place.
        gevent.sleep(0)


def test_bare(ask):
    def application(environ, start_response):
        path, stream = environ["PATH_INFO"], environ["wsgi.input"]
        plain = [("Content-Type", "text/plain")]
        if path == "/list":
            start_response("200 OK", plain)
            return [b"a", b"b"]
        if path == "/echo":
            data = stream.read(4) + stream.readline() + b"".join(stream) + stream.read(-1)
            start_response("201 Created", [*plain, ("Content-Length", str(len(data)))])
            return [data]
        if path == "/stream":
            return streamed(start_response)
        if path == "/write":
            write = start_response("200 OK", plain)
            write(b"a")
            write(b"b")
            return []
        if path == "/empty":
            start_response("204 No Content", [])
            return []
        if path == "/errors":
            environ["wsgi.errors"].write("to the error log\n")
            environ["wsgi.errors"].writelines(["and more\n"])
            environ["wsgi.errors"].flush()
            start_response("200 OK", plain)
            return [b""]
        start_response("404 Not Found", plain)
        return [b"no"]

    def streamed(start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        for n in range(3):
            gevent.sleep(0.001)
            yield b"%d" % n

    ask = ask(application)
    for _ in range(2):
        assert ask("GET", "/list?a=b&c").body == b"ab"
        for chunked in (False, True):
            data = b"line\nand\nmore"
            assert ask("POST", "/echo", body=data, chunked=chunked).body == data
        assert ask("GET", "/stream").body == b"012"
        assert ask("GET", "/write").body == b"ab"
        assert ask("GET", "/empty").status == 204
        assert ask("GET", "/errors").body == b""
        assert ask("GET", "/nothing").status == 404
    assert ask.server.error_log.text == "to the error log\nand more\n" * 2


def check_framework(ask):
    for _ in range(2):
        assert ask("GET", "/").body == b"home"
        # Both quote and unquote in their own ways; what arrives is what was meant.
        assert ask("GET", "/hello/J%C3%B6rg?x=%26").body.decode() == "J\xf6rg &"
        form = b"name=a+b%26c&name=d"
        kind = "Content-Type: application/x-www-form-urlencoded"
        assert ask("POST", "/form", kind, body=form).body == b"a b&c|d"
        parts = (
            b'--B\r\nContent-Disposition: form-data; name="f"; filename="n"\r\n\r\n'
            + b"\x00\xff" * 5000
            + b"\r\n--B--\r\n"
        )
        kind = "Content-Type: multipart/form-data; boundary=B"
        assert ask("POST", "/upload", kind, body=parts).body == b"10000"
        assert ask("GET", "/stream").body == b"0123456789"
        answer = ask("GET", "/cookie", "Cookie: a=1; b=2")
        assert answer.body == b"1 2"
        assert answer.fields["set-cookie"].startswith("c=3")
        answer = ask("GET", "/elsewhere")
        assert answer.status == 302
        assert re.fullmatch(r"(http://localhost:8000)?/", answer.fields["location"])
        assert ask("GET", "/missing").status == 404


def test_flask(ask):
    flask = pytest.importorskip("flask", reason="Flask is not installed")
    app = flask.Flask(__name__)

    app.add_url_rule("/", "home", lambda: "home")
    app.add_url_rule("/hello/<name>", "hello", lambda name: f"{name} {flask.request.args['x']}")

    @app.post("/form")
    def form():
        return "|".join(flask.request.form.getlist("name"))

    @app.post("/upload")
    def upload():
        return str(len(flask.request.files["f"].read()))

    @app.get("/stream")
    def stream():
        return flask.Response((str(n) for n in range(10)), mimetype="text/plain")

    @app.get("/cookie")
    def cookie():
        cookies = flask.request.cookies
        answer = flask.make_response(f"{cookies['a']} {cookies['b']}")
        answer.set_cookie("c", "3")
        return answer

    app.add_url_rule("/elsewhere", "elsewhere", lambda: flask.redirect("/"))

    @app.get("/file")
    def file():
        return flask.send_file(__file__, mimetype="text/plain")

    @app.post("/json")
    def json():
        return flask.jsonify(flask.request.get_json())

    def counting(environ, start_response):
        # Werkzeug calls read() without a size where the input ends by itself, which is what the
        # validator does not let pass.
        del environ["wsgi.input_terminated"]
        return app(environ, start_response)

    check_framework(ask(counting))
    ask = ask(app, validate=False)
    check_framework(ask)
    with open(__file__, "rb") as source:
        assert ask("GET", "/file").body == source.read()
    answer = ask("POST", "/json", "Content-Type: application/json", body=b'{"a": 1}', chunked=True)
    assert answer.body.strip() == b'{"a":1}'


def test_django(ask):
    django = pytest.importorskip("django", reason="Django is not installed")
    from django.conf import settings

    if not settings.configured:
        settings.configure(
            ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x", DEFAULT_CHARSET="utf-8"
        )
        django.setup()
    from django.core.wsgi import get_wsgi_application

    check_framework(ask(get_wsgi_application()))


def _django_urls():
    from django import http
    from django.urls import path

    def cookie(request):
        answer = http.HttpResponse(f"{request.COOKIES['a']} {request.COOKIES['b']}")
        answer.set_cookie("c", "3")
        return answer

    return [
        path("", lambda request: http.HttpResponse("home")),
        path("hello/<name>", lambda request, name: http.HttpResponse(f"{name} {request.GET['x']}")),
        path("form", lambda request: http.HttpResponse("|".join(request.POST.getlist("name")))),
        path("upload", lambda request: http.HttpResponse(str(request.FILES["f"].size))),
        path(
            "stream",
            lambda request: http.StreamingHttpResponse(str(n) for n in range(10)),
        ),
        path("cookie", cookie),
        path("elsewhere", lambda request: http.HttpResponseRedirect("/")),
    ]


try:
    urlpatterns = _django_urls()
except ImportError:
    urlpatterns = []
