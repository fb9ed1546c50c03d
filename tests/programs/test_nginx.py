"""nginx in front of the HTTP server, with upstream connections that it keeps: nothing may be lost.

The tests start it themselves, on free ports. Without nginx, or ApacheBench, they are skipped.
"""

import contextlib
import http.client
import os
import re
import subprocess
import sys

import pytest
import servers

CONFIGURATION = """\
daemon off;
worker_processes 1;
{user}
pid {folder}/pid;
error_log {folder}/error;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream app {{ server 127.0.0.1:{app}; keepalive 32; }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
        location / {{ proxy_pass http://app; }}
        location /unbuffered/ {{ proxy_pass http://app; proxy_request_buffering off; }}
    }}
}}
"""

APPLICATION = """\
import sys
from gevent import monkey
monkey.patch_all()
from gevent import pywsgi

def app(environ, start_response):
    # Whatever body there is stays unread.
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]

class Handler(pywsgi.WSGIHandler):
    def get_environ(self):
        return super().get_environ()

if __name__ == "__main__":
    ways = {"native": {}, "handler": {"handler_class": Handler}}
    address = ("127.0.0.1", int(sys.argv[2]))
    pywsgi.WSGIServer(address, app, log=None, **ways[sys.argv[1]]).serve_forever()
"""

WAYS = ["native", "handler", "gunicorn"]


@pytest.fixture(params=WAYS)
def site(request, tmp_path):
    """The port of an nginx, and which of our servers is behind it."""
    (tmp_path / "early_app.py").write_text(APPLICATION)
    app, port = servers.free_port(), servers.free_port()
    command = [sys.executable, "early_app.py", request.param, app]
    if request.param == "gunicorn":
        pytest.importorskip("gunicorn")
        command = [sys.executable, "-m", "gunicorn", "-k", "gevent.gunicorn.Worker"]
        command += ["-b", f"127.0.0.1:{app}", "--no-control-socket", "early_app:app"]
    with contextlib.ExitStack() as stack:
        try:
            nginx = servers.find("nginx")
        except servers.Missing as missing:
            pytest.skip(str(missing))
        stack.enter_context(servers.running(command, app, tmp_path / "app.log", cwd=tmp_path))
        conf = tmp_path / "conf"
        user = "user root;" if os.getuid() == 0 else ""
        conf.write_text(CONFIGURATION.format(folder=tmp_path, app=app, port=port, user=user))
        command = [nginx, "-p", tmp_path, "-c", conf, "-e", tmp_path / "error"]
        stack.enter_context(servers.running(command, port, tmp_path / "nginx.log"))
        yield port, request.param
        assert "Traceback" not in (tmp_path / "app.log").read_text()


def test_the_recipe_for_websockets_on_everything(site):
    """`Connection: upgrade` reaches the server with every request."""
    try:
        ab = servers.find("ab")
    except servers.Missing as missing:
        pytest.skip(str(missing))
    command = [ab, "-q", "-k", "-n", "1500", "-c", "6", f"http://127.0.0.1:{site[0]}/plain"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = dict(re.findall(r"^([\w -]+):\s+(\d+)", done.stdout, re.M))
    assert figures["Complete requests"] == "1500"
    assert figures["Failed requests"] == "0", done.stdout
    assert "Non-2xx responses" not in figures, done.stdout


def test_early_answers_to_bodies_that_are_passed_on_as_they_come(site, full):
    """nginx sends the body while the answer is there already."""
    body = b"x" * 20_000_000
    outcomes = {}
    port, way = site
    for _ in range(100 if full or way == "native" else 20):
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(client):
            try:
                client.request("POST", "/unbuffered/", body)
                answer = client.getresponse()
                outcome = answer.status, answer.read()
            except OSError as ex:
                outcome = type(ex).__name__
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert list(outcomes) == [(200, b"/unbuffered/")], outcomes
