"""Checks the .pyi files against the modules that they describe (mypy.stubtest).

What the two may differ in is listed in tools/stubs-allowed.txt, a name or pattern a line; an entry
that is no longer needed is an error. Ends with `N passed, N failed`, a module being one.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

import runs

NEEDS = ["mypy", "types-greenlet", "typing_extensions"]


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
    print(f"{len(names) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
