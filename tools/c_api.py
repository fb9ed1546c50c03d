"""Whether each function of the interpreter that the built module imports is in one of two lists.

guards.c has those with a guard, and says what that is; unguarded.toml the others, each with the
reason why it needs none. A function in neither, or in both, is an error. Runs after each build, and
in `make lint` if there is a module.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
import sysconfig

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCE = ROOT / "crates/pyo3-bindings/src"
DATA = re.compile(r"PyExc_\w+|\w+(?:_Type|Struct|Type)$")
# GIVES(type, name, ...), GIVES_NOTHING(name, ...) and functions that are written out.
GUARD = re.compile(
    r"^(?:GIVES\([\w *]+?, (\w+),|GIVES_NOTHING\((\w+),|\w+ __wrap_(\w+)\()", re.MULTILINE
)
# Python 3.10 has no reader of TOML, and this is all that the file has.
REASON = re.compile(r'^(\w+) = "[^"]+"$', re.MULTILINE)


def guarded() -> set[str]:
    found = GUARD.findall((SOURCE / "guards.c").read_text())
    return {name for names in found for name in names if name}


def unguarded() -> set[str]:
    return set(REASON.findall((SOURCE / "unguarded.toml").read_text()))


def module() -> pathlib.Path | None:
    """The module that was built for this interpreter."""
    path = ROOT / "python/gevent" / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}"
    return path if path.exists() else None


def imported(path: pathlib.Path) -> set[str]:
    """The functions of the interpreter that a module imports."""
    text = subprocess.run(
        ["nm", "-D", "--undefined-only", path], check=True, capture_output=True, text=True
    ).stdout
    names = {line.split()[-1].partition("@")[0] for line in text.splitlines()}
    return {name for name in names if re.match(r"_?Py", name) and not DATA.match(name)}


def main(argv: list[str]) -> int:
    path = pathlib.Path(argv[1]) if argv[1:] else module()
    if path is None:
        print("tools/c_api.py: no module was built")
        return 0
    known, free = guarded(), unguarded()
    found = [f"{name} is both guarded and not" for name in sorted(known & free)]
    # Elsewhere no guard is linked, but the names of whatever is imported have to be known too.
    found += [
        f"{name} has no guard in guards.c, and unguarded.toml does not say why it needs none"
        for name in sorted(imported(path) - known - free)
    ]
    for text in found:
        print(f"{path.name}: {text}")
    print(f"tools/c_api.py: {len(found)} findings, {len(imported(path))} functions")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
