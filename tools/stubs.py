"""Checks the .pyi files against the modules that they describe (mypy.stubtest).

What the two may differ in is listed in tools/stubs-allowed.txt, a name or pattern a line; an entry
that is no longer needed is an error. `mypy --strict` then reads the programs of tests/types: it has
nothing to say of one, and finds each mistake of the other. Ends with `N passed, N failed`, a module
or program being one.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

import runs

NEEDS = ["mypy", "types-greenlet", "typing_extensions"]


def programs() -> list[str]:
    """What is wrong with how the programs of tests/types are checked."""
    folder = runs.ROOT / "tests" / "types"
    wrong = []
    for program in ("accepted.py", "refused.py"):
        lines = (folder / program).read_text().splitlines()
        marks = ((at, re.search(r"# \[([\w-]+)\]$", line)) for at, line in enumerate(lines, 1))
        expected = {(at, mark[1]) for at, mark in marks if mark}
        done = runs.run(
            [sys.executable, "-m", "mypy", "--strict", "--no-incremental", program],
            300,
            {"MYPYPATH": str(runs.ROOT / "python")},
            cwd=folder,
        )
        errors = re.findall(r"^[^:]+:(\d+): error: .*\[([\w-]+)\]$", done.out, re.M)
        found = {(int(at), code) for at, code in errors}
        wrong += [f"{program}:{at}: not found: {code}" for at, code in sorted(expected - found)]
        wrong += [f"{program}:{at}: unexpected: {code}" for at, code in sorted(found - expected)]
        if not found and (done.code != 0 or expected):
            wrong.append(f"{program}: {done.tail()}")
    return wrong


def main() -> int:
    package = runs.ROOT / "python" / "gevent"
    stubs = sorted(path.relative_to(package) for path in package.rglob("*.pyi"))
    names = {".".join(["gevent", *path.with_suffix("").parts]) for path in stubs}
    need = runs.run([sys.executable, "-m", "pip", "install", "-q", *NEEDS], 300)
    if need.code != 0:
        print(need.tail(5))
        print("skipped: mypy (pip could not install it)")
        print(f"0 passed, 0 failed, {len(names)} skipped")
        return 0
    with tempfile.TemporaryDirectory() as work:
        # The stubs alone, or mypy would take the modules without one for stubs too.
        for path in stubs:
            place = Path(work, "gevent", path)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(package / path, place)
        done = runs.run(
            [sys.executable, "-m", "mypy.stubtest", "gevent", "--concise", "--ignore-missing-stub"]
            + ["--ignore-disjoint-bases"]
            + ["--allowlist", runs.ROOT / "tools" / "stubs-allowed.txt"],
            300,
            {"MYPYPATH": work},
            cwd=work,
        )
    print(done.out.strip())
    found = "\n".join(re.findall(r"^gevent[\w.]*", done.out, re.M))
    bad = {
        n for n in names if re.search(rf"^{re.escape(n.removesuffix('.__init__'))}\b", found, re.M)
    }
    failed = len(bad) or int(done.code != 0)
    wrong = programs()
    print("\n".join(wrong))
    of_programs = len({line.partition(":")[0] for line in wrong})
    print(f"{len(names) + 2 - failed - of_programs} passed, {failed + of_programs} failed")
    failed += of_programs
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
