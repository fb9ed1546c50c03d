"""A page in headless Chromium talks to the chat example: a real client of our WebSockets.

The page does the work and posts what it found back to the server.
"""

import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess

import gevent
import pytest
from gevent.event import AsyncResult
from gevent.pywsgi import WSGIServer
from http_client import serving

pytestmark = pytest.mark.ours

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "websocket_chat.py"
SCALE = float(os.environ.get("TIME_SCALE") or 1)

PAGE = """<!doctype html><meta charset="utf-8"><script>
const base = location.origin.replace(/^http/, "ws");
const open = path => new Promise((good, bad) => {
  const socket = new WebSocket(base + path);
  socket.binaryType = "arraybuffer";
  socket.queue = []; socket.waiting = [];
  socket.onmessage = e => {
    const next = socket.waiting.shift();
    next ? next(e.data) : socket.queue.push(e.data);
  };
  socket.next = () => socket.queue.length
    ? Promise.resolve(socket.queue.shift()) : new Promise(then => socket.waiting.push(then));
  socket.closed = new Promise(then => { socket.onclose = e =>
    then({code: e.code, reason: e.reason, clean: e.wasClean}); });
  socket.onopen = () => good(socket);
  socket.onerror = () => bad("no connection to " + path);
});
(async () => {
  const found = {};
  const echo = await open("/echo");
  found.extensions = echo.extensions;
  echo.send("h\\u00e9llo \\u{1f600}");
  found.text = await echo.next();
  const long = "0123456789".repeat(20000);
  echo.send(long);
  found.long = (await echo.next()) === long;
  const bytes = new Uint8Array(100000).map((_, n) => n * 7);
  echo.send(bytes);
  const back = new Uint8Array(await echo.next());
  found.bytes = back.length === bytes.length && back.every((b, n) => b === bytes[n]);
  for (let n = 0; n < 200; n++) echo.send("" + n);
  found.order = true;
  for (let n = 0; n < 200; n++) found.order = (await echo.next()) === "" + n && found.order;
  echo.close(4321, "enough");
  found.closed = await echo.closed;

  const [a, b] = [await open("/chat"), await open("/chat")];
  a.send("from a");
  found.chat = [await a.next(), await b.next()];
  b.send("from b");
  found.chat.push(await a.next(), await b.next());
  a.close(); b.close();
  found.left = [(await a.closed).code, (await b.closed).clean];
  return found;
})().catch(error => ({error: "" + error})).then(found =>
  fetch("/found", {method: "POST", body: JSON.stringify(found)}));
</script>"""

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.timeout(120)
def test_a_page_in_chromium(tmp_path):
    from gevent.websocket import WebSocketHandler

    spec = importlib.util.spec_from_file_location("websocket_chat", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    found = AsyncResult()

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/test":
            start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
            return [PAGE.encode()]
        if environ["PATH_INFO"] == "/found":
            found.set(json.loads(environ["wsgi.input"].read()))
            start_response("204 No Content", [])
            return []
        return example.application(environ, start_response)

    with serving(application, WSGIServer, handler_class=WebSocketHandler) as server:
        url = f"http://127.0.0.1:{server.server_port}/test"
        browser = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path}", "--remote-debugging-port=0", url],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            result = found.get(timeout=90 * SCALE)
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
        gevent.sleep(0)
    assert "permessage-deflate" in result.pop("extensions")
    assert result == {
        "text": "h\xe9llo \U0001f600",
        "long": True,
        "bytes": True,
        "order": True,
        "closed": {"code": 4321, "reason": "enough", "clean": True},
        "chat": ["from a", "from a", "from b", "from b"],
        "left": [1005, True],
    }
