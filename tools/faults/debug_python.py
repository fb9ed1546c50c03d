"""A debug CPython: the module built for it, the Python tests on it, and its count of references.

    debug_python.py [--loop NAME] [--quick] [--only TEXT]

Debian's python3-dbg checks in every call what a usual interpreter takes for granted: that no error
is set where a value comes back, that what is freed is not used, that the thread holds its state.
Its `sys.gettotalrefcount` has to stay flat over cycles of work. The module is built into an
environment of its own.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import sys

import common
import runs

#: Of the short form, and of the whole.
QUICK = ["test_primitives.py", "test_greenlet_switch.py"]
REFERENCES = """
import gc, sys
sys.path.insert(0, {here!r})
from gevent import monkey
monkey.patch_all()
import gevent, work
gevent.get_hub().exception_stream = None

def total():
    gevent.os._watched_children.clear()
    for _ in range(3):
        gevent.sleep(0.001)
        gc.collect()
    return sys.gettotalrefcount()

for name in work.ALL:
    for _ in range(10):
        work.run(name)
    marks = []
    for _ in range(4):
        for _ in range({count}):
            work.run(name)
        marks.append(total())
    grew = min(b - a for a, b in zip(marks, marks[1:])) >= {count}
    print("REFERENCES", name, "grew" if grew else "flat", *marks, flush=True)
"""


def environment() -> tuple[pathlib.Path | None, str]:
    """The interpreter with the module in it, or why there is none."""
    runs.run([runs.ROOT / "tools" / "setup.sh", "python3-dbg", "python3-venv"], 400)
    debug = shutil.which("python3-dbg") or shutil.which("python3d")
    if not debug:
        return None, "no python3-dbg"
    folder = runs.ROOT / "target" / "debug-python"
    python = folder / "bin" / "python"
    if not python.exists():
        made = runs.run([debug, "-m", "venv", folder], 120)
        if made.code != 0:
            return None, f"no environment: {made.out.strip().splitlines()[-1]}"
    needs = ["maturin>=1.9.4,<2", "pytest>=8", "pytest-timeout>=2.3", "psutil", "objgraph"]
    needs += ["zope.event", "zope.interface", "requests"]
    done = runs.run([python, "-m", "pip", "install", "-q", *needs], 600)
    if done.code != 0:
        return None, f"pip: {done.out.strip().splitlines()[-1]}"
    env = {"VIRTUAL_ENV": str(folder), "PYO3_PYTHON": str(python)}
    env["CARGO_TARGET_DIR"] = str(runs.ROOT / "target" / "debug-build")
    maturin = [folder / "bin" / "maturin", "develop", "-q", "--locked", "--profile", "fast"]
    built = runs.run(maturin, 1800, env)
    if built.code != 0:
        print(built.tail(40))
        return None, f"the module does not build for it ({built.ending()})"
    return python, ""


def tests(python, loop: str, quick: bool) -> runs.Count:
    total = runs.Count()
    folder = runs.ROOT / "tests" / "python"
    env = {"GEVENT_LOOP": loop, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for path in [folder / name for name in QUICK] if quick else sorted(folder.glob("test_*.py")):
        command = [python, "-m", "pytest", "-q", "-p", "pytest_timeout", "-p", "no:cacheprovider"]
        done = runs.run([*command, path], 900, env)
        count = runs.count_pytest(done, f"{path.name} [{loop}, debug]")
        if count.failed:
            print(f"FAILED {path.name}\n{done.tail(60)}", flush=True)
        total += count
    return total


def references(python, loop: str, quick: bool) -> runs.Count:
    source = REFERENCES.format(here=str(common.HERE), count=10 if quick else 50)
    done = runs.run([python, "-X", "faulthandler", "-c", source], 900, {"GEVENT_LOOP": loop})
    total = runs.Count()
    for name, how, marks in re.findall(r"^REFERENCES (\w+) (\w+) (.*)$", done.out, re.M):
        total += runs.Count(passed=how == "flat", failed=how != "flat")
        if how != "flat":
            total.notes.append(f"references of {name} [{loop}]: {marks}")
    if done.code != 0:
        print(done.tail(60))
        total += runs.Count(failed=1, notes=[f"references [{loop}]: {done.ending()}"])
    return total


def main() -> int:
    options = common.arguments(__doc__.splitlines()[0])
    python, why = environment()
    if python is None:
        return runs.Count(skipped=1, notes=[f"skipped: debug CPython ({why})"]).end()
    print(
        subprocess.run([python, "-VV"], capture_output=True, text=True, check=False).stdout.strip()
    )
    total = references(python, options.loop, options.quick)
    total += tests(python, options.loop, options.quick)
    return total.end()


if __name__ == "__main__":
    sys.exit(main())
