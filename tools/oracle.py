"""Our own Python tests on upstream gevent: a body that fails there asserts something we made up.

    oracle.py [--jobs N] [FILE ...]

Makes a virtual environment outside the repository with upstream's release in it, and runs every
file of tests/python there without the tests marked `ours`. Ends with `N passed, N failed,
N skipped`.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import pathlib
import re
import sys

import runs

VERSION = re.search(r'^version = "([\d.]+)\+', (runs.ROOT / "pyproject.toml").read_text(), re.M)[1]


def environment() -> pathlib.Path:
    """The interpreter of a virtual environment with upstream's gevent; made at first use."""
    base = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    tag = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = base / f"gevent-oracle-{VERSION}-cp{tag}"
    python = folder / "bin" / "python"
    if not (folder / ".ready").exists():
        for command in (
            [sys.executable, "-m", "venv", folder],
            [python, "-m", "pip", "install", "--quiet", f"gevent=={VERSION}", "pytest"]
            + ["pytest-timeout", "psutil", "requests", "objgraph"],
        ):
            done = runs.run(command, 600)
            if done.code != 0:
                raise SystemExit(f"no environment with upstream gevent:\n{done.tail()}")
        (folder / ".ready").touch()
    return python


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    python = environment()
    files = options.files or sorted((runs.ROOT / "tests" / "python").rglob("test_*.py"))

    def one(path) -> runs.Count:
        # From another folder, or `python -m` would put this repository's packages first.
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-c", runs.ROOT / "pyproject.toml", "--rootdir", runs.ROOT]
        done = runs.run([*command, pathlib.Path(path).resolve()], 240, cwd=python.parent)
        count = runs.count_pytest(done, str(path))
        if count.failed:
            print(f"FAILED {path}: {done.ending()}\n{done.tail(60)}", flush=True)
        count.notes = [n for n in count.notes if not n.startswith("skipped:")]
        return count

    total = runs.Count()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for count in pool.map(one, files):
            total += count
    print("\n".join(total.notes))
    print(total)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
