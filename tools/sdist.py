"""The source distribution, proved: built, unpacked elsewhere, installed from that alone, and used.

    sdist.py [--out DIR]

The archive goes to `dist`. pip builds it in an environment of its own, as for a user, in which
there is nothing of the tree; only crates that were compiled before are kept, in
`target/sdist`. Ends with `N passed, N failed, N skipped`.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import tarfile
import tempfile

import runs

# Seconds: crates are compiled from nothing the first time.
BUILD_LIMIT = 1500
USE_LIMIT = 60

# What has to be in the archive besides the sources that cargo names.
WANTED = [
    "Cargo.lock",
    "LICENSE",
    "README.md",
    "THIRD-PARTY-NOTICES.txt",
    "PKG-INFO",
    "python/gevent/py.typed",
    "python/wheel-data/purelib/gevent-greenlet.pth",
]

USE = """
import sys
import greenlet, gevent, gevent._core
from gevent import monkey, pywsgi, socket
monkey.patch_all()
assert greenlet.__file__.startswith(sys.prefix), greenlet.__file__
assert gevent.__file__.startswith(sys.prefix), gevent.__file__

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"from the archive"]

server = pywsgi.WSGIServer(("127.0.0.1", 0), app, log=None)
server.start()
client = socket.create_connection(server.address)
client.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
answer = b"".join(iter(lambda: client.recv(4096), b""))
assert answer.startswith(b"HTTP/1.1 200 OK") and answer.endswith(b"from the archive"), answer
print("served")
"""


def check(folder: pathlib.Path, archive: pathlib.Path) -> list[tuple[str, runs.Done | None]]:
    """What was tried in `folder`, in order; the last one may have failed."""
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    (tree,) = [path for path in folder.iterdir() if path.is_dir()]
    missing = [name for name in WANTED if not (tree / name).exists()]
    if missing:
        return [(f"the archive lacks {', '.join(missing)}", None)]
    for path in tree.rglob("*"):
        # The archive's times are all alike, and cargo would take old objects for current by them.
        os.utime(path)
    python = folder / "env" / "bin" / "python"
    env = {
        "CARGO_TARGET_DIR": str(runs.ROOT / "target" / "sdist"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        # The environment of the tree is not to be seen.
        "VIRTUAL_ENV": "",
        "PYO3_PYTHON": "",
    }
    steps = [
        ("environment", [sys.executable, "-m", "venv", folder / "env"], BUILD_LIMIT),
        ("install", [python, "-m", "pip", "install", "--quiet", tree], BUILD_LIMIT),
        ("use", [python, "-I", "-c", USE], USE_LIMIT),
    ]
    done = []
    for name, command, limit in steps:
        result = runs.run(command, limit, env, folder)
        done.append((name, result))
        if result.code != 0:
            break
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=runs.ROOT / "dist")
    options = parser.parse_args()
    count = runs.Count()
    maturin = pathlib.Path(sys.executable).parent / "maturin"
    built = runs.run([maturin, "sdist", "--out", options.out], 120)
    archives = sorted(options.out.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime)
    if built.code != 0 or not archives:
        print(built.tail())
        return runs.Count(failed=1, notes=["sdist: not built"]).end()
    archive = archives[-1]
    with tempfile.TemporaryDirectory() as folder:
        for name, result in check(pathlib.Path(folder), archive):
            if result is not None and result.code == 0:
                count.passed += 1
                continue
            count.failed += 1
            count.notes.append(f"sdist: {name}: {result.ending() if result else 'incomplete'}")
            print(result.tail(60) if result else name)
    if not count.failed:
        print(f"{archive.name}: {archive.stat().st_size // 1024} KiB")
    return count.end()


if __name__ == "__main__":
    sys.exit(main())
