"""Runs upstream gevent's own test files against the `gevent` of this interpreter.

    run.py [--loop NAME] [--jobs N] [--listed] [--python PATH] [-v] [PATTERN ...]

The files come from upstream's wheel, which pip downloads once into a cache folder outside the
repository; nothing of it is copied here. Only its `gevent.testing` and `gevent.tests` are used: a
`sitecustomize` puts an import finder in front that knows just these two packages, and every other
`gevent` module is the one under test. Each file is one process with a time limit.

`expected.toml` beside this file names the files that have to be clean on each loop, and what some
of them want in the environment. A listed file that is not clean is a failure. One that is clean and
not listed is reported, so that it gets listed: the list only grows. With patterns, or on a loop
without a list, every file that matches counts. Ends with `N passed, N failed, N skipped`, in
upstream's single tests.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import fnmatch
import glob
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

try:
    import tomllib
except ImportError:  # CPython 3.10; pytest brings it there
    import tomli as tomllib

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tools"))
import runs  # noqa: E402

VERSION = "26.9.0"
LIMIT = 150
UNLISTED_LIMIT = 60

FINDER = """\
import importlib.machinery, os, sys

class UpstreamPackages:
    root = os.environ["GEVENT_UPSTREAM_FILES"]

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in ("gevent.testing", "gevent.tests"):
            folder = os.path.join(cls.root, "gevent")
            return importlib.machinery.PathFinder.find_spec(name, [folder])

sys.meta_path.insert(0, UpstreamPackages)
"""


@dataclasses.dataclass
class Result:
    """What one test file did."""

    name: str
    done: runs.Done
    ran: int
    bad: int
    skipped: int

    @property
    def clean(self) -> bool:
        # From CPython 3.12 on, unittest ends with 5 when all of a file's tests were skipped.
        skipped_all = self.done.code == 5 and "NO TESTS RAN" in self.done.out
        return (self.done.code == 0 or skipped_all) and not self.bad

    @property
    def count(self) -> runs.Count:
        # A file without unittest's closing line is a script: it counts as one test.
        ran = self.ran or 1
        failed = 0 if self.clean else max(self.bad, 1)
        return runs.Count(max(ran - failed - self.skipped, 0), failed, self.skipped)

    def line(self) -> str:
        how = "ok  " if self.clean else "FAIL"
        why = "" if self.clean else "  " + self.done.ending()
        return (
            f"{how} {self.name:<46} ran {self.ran:4}  bad {self.bad:3}"
            f"  skipped {self.skipped:3}  {self.done.seconds:6.1f} s{why}"
        )


def cache_folder() -> pathlib.Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(base) / f"gevent-upstream-{VERSION}"


def upstream_files(folder: pathlib.Path) -> pathlib.Path:
    """The folder that holds upstream's two test packages; fetched at first use."""
    if (folder / "gevent" / "tests" / "__init__.py").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        # The tests are the same in every wheel: ask for one that is sure to exist.
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
            + ["--no-deps", "--only-binary=:all:", "--python-version=3.11"]
            + ["--implementation=cp", "--platform=manylinux_2_28_x86_64"]
            + ["--platform=manylinux2014_x86_64", "--dest", work, f"gevent=={VERSION}"],
            check=True,
            timeout=300,
        )
        wheel = glob.glob(os.path.join(work, "*.whl"))[0]
        unpacked = pathlib.Path(work) / "files"
        with zipfile.ZipFile(wheel) as archive:
            wanted = ("gevent/tests/", "gevent/testing/")
            archive.extractall(unpacked, [n for n in archive.namelist() if n.startswith(wanted)])
        if not folder.exists():
            unpacked.rename(folder)
    return folder


def run_file(python: str, files: pathlib.Path, site: str, name: str, loop: str, limit: float, more):
    env = {
        **more,
        "GEVENT_UPSTREAM_FILES": str(files),
        "PYTHONPATH": site,
        "PYTHONFAULTHANDLER": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "GEVENTTEST_USE_RESOURCES": "all,-network",
    }
    if loop:
        env["GEVENT_LOOP"] = loop
    command = [python, "-m", "gevent.tests." + name.removesuffix(".py")]
    done = runs.run(command, limit, env, files / "gevent" / "tests")
    ran = sum(map(int, re.findall(r"^Ran (\d+) tests?\b", done.out, re.M)))
    ends = "\n".join(re.findall(r"^(?:OK|FAILED) \(.*\)$", done.out, re.M))

    def total(words: str) -> int:
        return sum(map(int, re.findall(rf"\b(?:{words})=(\d+)", ends)))

    return Result(name, done, ran, total("failures|errors|unexpected successes"), total("skipped"))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--loop", default="")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--listed", action="store_true", help="leave out files that are not listed")
    parser.add_argument("--list-clean", action="store_true", help="end with the clean files' names")
    parser.add_argument(
        "-v", action="store_true", help="show the output's end of every file that fails"
    )
    parser.add_argument("patterns", nargs="*")
    options = parser.parse_args()

    expected = tomllib.loads((HERE / "expected.toml").read_text())
    listed = set(expected["clean"]["every-loop"]) | set(expected["clean"].get(options.loop, []))
    never = {name: row["why"] for name, row in expected.get("never", {}).items()}
    known = {
        name: row["why"]
        for name, row in expected.get("known", {}).items()
        if options.loop in row.get("loops", [options.loop])
    }
    files = upstream_files(cache_folder())
    present = sorted(p.name for p in (files / "gevent" / "tests").glob("test_*.py"))
    chosen = [n for n in present if n not in never and (n in listed or not options.listed)]
    if options.patterns:
        chosen = [n for n in present if any(fnmatch.fnmatch(n, p) for p in options.patterns)]
        listed, never, known = set(chosen), {}, {}
    missing = sorted(listed - set(present))

    with tempfile.TemporaryDirectory() as site:
        pathlib.Path(site, "sitecustomize.py").write_text(FINDER)

        def one(name: str) -> Result:
            limit = LIMIT if name in listed else UNLISTED_LIMIT
            more = expected.get("environment", {}).get(name, {})
            more = {key: value for key, value in more.items() if key != "why"}
            return run_file(options.python, files, site, name, options.loop, limit, more)

        def show(result: Result) -> None:
            print(result.line(), flush=True)
            if not result.clean and (options.v or result.name in listed):
                print(result.done.tail(60 if options.v else 30), flush=True)

        results = {}
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            for result in pool.map(one, chosen):
                results[result.name] = result
                show(result)
        # Many of these tests measure time: one more try, with the machine to itself.
        for name in [n for n in chosen if n in listed and not results[n].clean]:
            print("again, alone:")
            results[name] = one(name)
            show(results[name])
            if results[name].clean:
                print(f"unsteady: {name}")

    total = runs.Count()
    for name, result in results.items():
        if name in listed:
            total += result.count
        elif result.clean:
            print(f"clean and not listed: {name}")
        else:
            print(
                f"not clean, not expected to be: {name}: {known.get(name, 'not looked into yet')}"
            )
            total.skipped += 1
    for name in missing:
        print(f"listed, but upstream has no such file: {name}")
        total.failed += 1
    for name, why in never.items():
        print(f"skipped: {name} ({why})")
        total.skipped += 1
    clean = sum(r.clean for r in results.values())
    print(f"{options.loop or 'default loop'}: {clean} of {len(results)} files clean")
    if options.list_clean:
        print("\n".join(f'    "{n}",' for n, r in results.items() if r.clean))
    print(total)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
