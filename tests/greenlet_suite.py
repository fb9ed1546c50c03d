#!/usr/bin/env python3
"""Runs greenlet's own test-suite against this project's greenlet.

    python tests/greenlet_suite.py [--python PYTHON] [--core PATH] [TEST ...]

The suite comes with greenlet's wheel, which is fetched with pip into ``.cache`` together with what
the tests import (psutil, objgraph). Its tests, and the extension modules that were compiled against
the real greenlet, then run with ``greenlet`` being ours: each file in a process of its own, under a
time limit. A test that fails must be listed in ``EXPECTED`` with the reason; a listed one that
passes fails the run.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

VERSION = "3.5.6"
ROOT = Path(__file__).resolve().parent.parent
LIMIT = 300

# test id -> why it cannot pass here. A key may end in "@3.11", which limits it to that version.
NO_LEAK = "asserts that the real greenlet leaks here; ours does not"
EXPECTED = {
    f"test_leaks.TestLeaks.test_issue251_issue252_{name}@3.15": NO_LEAK
    for name in (
        "explicit_reference_not_collectable",
        "need_to_collect_in_background",
        "need_to_collect_in_background_cleanup_disabled",
    )
}

SITECUSTOMIZE = """
import os, sys
import _gevent_greenlet_finder
import greenlet
assert greenlet.__file__.startswith(os.environ["GREENLET_SUITE_ROOT"]), greenlet.__file__
greenlet.__path__.append(os.environ["GREENLET_SUITE_WHEEL"])
"""

HOME = """
import importlib.util, os
print(os.path.dirname(os.path.dirname(importlib.util.find_spec("gevent").origin)))
"""

INFO = """
import sys, sysconfig
print("%d.%d" % sys.version_info[:2], sysconfig.get_config_var("EXT_SUFFIX"))
"""


def run(*command, **options):
    """Runs a command that must succeed."""
    return subprocess.run(command, check=True, **options)


def home(python):
    """The folder of the package gevent that this Python has installed, else the clone's."""
    found = subprocess.run([python, "-c", HOME], capture_output=True, text=True, check=False)
    return Path(found.stdout.strip() or ROOT / "python").resolve()


def prepare(python):
    """Makes the folder with the wheel and its needs for one Python version, and returns it."""
    info = run(python, "-c", INFO, capture_output=True, text=True).stdout.split()
    folder = ROOT / ".cache" / "greenlet-suite" / info[0]
    if not (folder / "complete").exists():
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--upgrade"]
        run(*pip, "--no-deps", "--target", folder / "wheel", f"greenlet=={VERSION}")
        run(*pip, "--target", folder / "needs", "psutil", "objgraph")
        start = folder / "start"
        start.mkdir(exist_ok=True)
        (start / "sitecustomize.py").write_text(SITECUSTOMIZE)
        (folder / "complete").touch()
    return info[0], folder


def environment(folder, core):
    """The variables that put ours first on the path, in the tests and in what they start."""
    paths = [
        folder / "start",
        ROOT / "python" / "wheel-data" / "purelib",
        core,
        folder / "needs",
    ]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "GREENLET"))}
    env["PYTHONPATH"] = os.pathsep.join(str(p) for p in paths)
    env["GREENLET_SUITE_ROOT"] = str(core)
    env["GREENLET_SUITE_WHEEL"] = str(folder / "wheel" / "greenlet")
    return env


END = re.compile(r"\.\.\. (?:.*)?\b(ok|FAIL|ERROR|skipped|expected failure)\b|^(ok|FAIL|ERROR)$")


def outcomes(text):
    """Reads unittest's verbose output: {test id: (outcome, line)}."""
    found = {}
    pattern = re.compile(r"^(\w+) \(([\w.]+?)(?:\.\1)?\)")
    current = None
    for line in text.splitlines():
        start = pattern.match(line)
        if start:
            current = f"{start[2].rpartition('tests.')[2]}.{start[1]}"
        end = END.search(line)
        if current and end:
            found.setdefault(current, (end[1] or end[2], line))
            current = None
    return found


def run_file(python, env, name, limit):
    """Runs one test module; returns its outcomes, how it ended, and its output."""
    # -X faulthandler: a crash says where.
    command = [python, "-X", "faulthandler", "-m", "unittest", "-v", f"greenlet.tests.{name}"]
    try:
        done = subprocess.run(
            command,
            env=env,
            timeout=limit,
            capture_output=True,
            text=True,
            errors="replace",
            cwd="/",
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        out = (error.stderr or b"").decode(errors="replace")
        return outcomes(out), f"no end after {limit} s", out
    text = done.stderr + done.stdout
    ended = None if done.returncode in (0, 1, 5) else f"exit status {done.returncode}"
    if done.returncode == 1 and "Ran " not in text:
        ended = "did not run"
    return outcomes(text), ended, text


def reason(test, version):
    """Why a test may fail, if it may."""
    return EXPECTED.get(f"{test}@{version}") or EXPECTED.get(test)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--core", type=Path, help="folder that holds the package gevent")
    parser.add_argument("--limit", type=int, default=LIMIT, help="seconds for each file")
    parser.add_argument("--show", action="store_true", help="print the output of failing files")
    parser.add_argument("tests", nargs="*", help="test files, such as test_greenlet")
    args = parser.parse_args()
    core = args.core.resolve() if args.core else home(args.python)
    version, folder = prepare(args.python)
    env = environment(folder, core)
    names = args.tests or sorted(
        p.stem for p in (folder / "wheel" / "greenlet" / "tests").glob("test_*.py")
    )
    counts, bad = {}, []
    for name in names:
        began = time.monotonic()
        found, ended, text = run_file(args.python, env, name, args.limit)
        failed = {t for t, (outcome, _) in found.items() if outcome in ("FAIL", "ERROR")}
        for outcome, _ in found.values():
            counts[outcome] = counts.get(outcome, 0) + 1
        wrong = sorted(t for t in failed if not reason(t, version))
        stale = sorted(
            t for t, (outcome, _) in found.items() if outcome == "ok" and reason(t, version)
        )
        if ended:
            wrong.append(f"{name}: {ended}")
        bad += wrong + [f"{t}: listed, but passes" for t in stale]
        took = time.monotonic() - began
        result = wrong or "ok"
        print(f"{name:28} {len(found):4} tests {took:6.1f} s  {result}", flush=True)
        if wrong and args.show:
            print(text)
    summary = ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items()))
    print(f"CPython {version}, greenlet {VERSION}: {summary}; {len(bad)} unexpected")
    for line in bad:
        print(" ", line)
    skipped = counts.get("skipped", 0) + counts.get("expected failure", 0)
    print(f"{counts.get('ok', 0)} passed, {len(bad)} failed, {skipped} skipped")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
