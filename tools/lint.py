"""What rustfmt, clippy and ruff do not check: headers, contracts of unsafe functions, leftovers,
layers, sizes.

Reads the files that git tracks or would track. Prints `file:line: what` for every finding and
exits 1 when there is one.
"""

from __future__ import annotations

import ast
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A file longer than this is usually two ideas.
MANY_LINES = 800
TOO_MANY_LINES = 1000

LEFTOVER = re.compile(
    r"\btodo!\(|\bunimplemented!\(|\b(?:TODO|FIXME|XXX)\b|#\[ignore\]"
    r"|pytest\.mark\.skip\b(?!\()|@unittest\.skip\b(?!\()"
)
# An abstract method may raise it: the line then says so.
ABSTRACT = re.compile(r"raise NotImplementedError(?!.*# abstract)")
# Registries and mirrors are each machine's own setting, and so are its folders.
PLACES = re.compile(
    r"\b(?:pypi\.org|pythonhosted\.org|crates\.io/api|npmjs\.(?:org|com)|deb\.debian\.org)\b"
    r"|(?<![\w.])/(?:root|work|opt/wheels)/"
)
# A method of an `impl Trait for Type` has the contract of the trait, and a function with the C ABI
# that of the slot or table which it stands in; every other unsafe function says what its callers
# promise.
UNSAFE_FN = re.compile(r"(\s*)(?:pub(?:\([^)]*\))? )?(?:const )?unsafe fn (\w+)")
ABOVE_A_FN = re.compile(r"\s*(?://|#\[|\)\]|\w+(?:::\w+)*,|reason = )")
BLOCK = re.compile(r"(\s*)(?:pub(?:\([^)]*\))? )?(?:unsafe )?(impl|trait|mod|fn)\b(.*)")
# A function that C calls: #[crate::entry] is directly above it, so that no panic gets to C.
C_FN = re.compile(r"\s*(?:pub(?:\([^)]*\))? )?(?:unsafe )?extern \"C\" fn ([$\w]+)")
ENTRY = re.compile(r"\s*#\[crate::entry(?:\(silent\))?\]")
METHODS = re.compile(r"\s*#\[pymethods\]")
# Those without it: what the system calls, with a body that cannot panic, and tests.
NO_ENTRY = {
    "on_signal": "a signal handler: one store and one write(2)",
    "on_fault": "a signal handler: works on memory of its own",
    "count_fork": "called at a fork: one addition",
    "count_signal": "a test's signal handler",
    "handle": "a test's signal handler",
    "earlier_handler": "a test's signal handler",
    "later_handler": "a test's signal handler",
}
# crate -> the crates of this workspace that it may use; the arrows of ARCHITECTURE.md.
LAYERS = {
    "gevent-entry": set(),
    "gevent-hub-core": set(),
    "gevent-loop-epoll": {"gevent-hub-core"},
    "gevent-loop-uring": {"gevent-hub-core"},
    "gevent-loop-kqueue": {"gevent-hub-core"},
    "gevent-sync": {"gevent-hub-core"},
    "gevent-net": {"gevent-hub-core"},
    "gevent-wsgi": {"gevent-hub-core", "gevent-net"},
}
KNOWS_PYTHON = "gevent-pyo3-bindings"


def tracked() -> list[pathlib.Path]:
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def check(path: pathlib.Path):
    name = str(path.relative_to(ROOT))
    try:
        text = path.read_text()
    except UnicodeDecodeError:
        return
    lines = text.splitlines()
    own = name.startswith("tools/lint.py")
    if name != "Cargo.lock" and not own:
        for number, line in enumerate(lines, 1):
            if PLACES.search(line):
                yield number, "names a registry's host or a machine's folder"
    if path.suffix not in (".rs", ".py", ".c", ".h"):
        return
    for number, line in enumerate(lines, 1):
        if not own and LEFTOVER.search(line):
            yield number, "unfinished or skipped, by its own words"
        if not own and path.suffix == ".py" and ABSTRACT.search(line):
            yield number, "NotImplementedError on a path that is offered"
    if len(lines) > TOO_MANY_LINES:
        yield 1, f"{len(lines)} lines: more than one idea (limit {TOO_MANY_LINES})"
    if path.suffix == ".rs":
        if not text.startswith("//!"):
            yield 1, "does not open with a `//!` that says what lives here"
        yield from unsafe_without_contract(lines)
        yield from without_entry(lines)
    elif path.suffix == ".py" and text.strip():
        if not ast.get_docstring(ast.parse(text)):
            yield 1, "does not open with a docstring that says what lives here"


def unsafe_without_contract(lines: list[str]):
    """The unsafe functions of a Rust file that have no `# Safety` section, by line."""
    for at, line in enumerate(lines):
        found = UNSAFE_FN.match(line)
        if not found:
            continue
        top = at
        while top and ABOVE_A_FN.match(lines[top - 1]):
            top -= 1
        if any("# Safety" in above for above in lines[top:at]):
            continue
        around = (BLOCK.match(before) for before in reversed(lines[:at]))
        outer = next((b for b in around if b and len(b[1]) < len(found[1])), None)
        if not (outer and outer[2] == "impl" and " for " in outer[3]):
            yield at + 1, f"unsafe fn {found[2]} does not say what its callers promise (# Safety)"


def without_entry(lines: list[str]):
    """The functions and blocks of methods that C calls and that let a panic out, by line."""
    for at, line in enumerate(lines):
        found = C_FN.match(line)
        if found and found[1] not in NO_ENTRY and not ENTRY.match(lines[at - 1]):
            yield at + 1, f'extern "C" fn {found[1]} without #[crate::entry]'
        if METHODS.match(line) and not ENTRY.match(lines[at - 1]):
            yield at + 1, "#[pymethods] without #[crate::entry]"


def layers():
    """The workspace's dependency arrows, as cargo sees them (development ones are free)."""
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version=1", "--no-deps", "--locked"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )
    own = {package["name"] for package in metadata["packages"]}
    for package in metadata["packages"]:
        name = package["name"]
        uses = {d["name"] for d in package["dependencies"] if d["kind"] != "dev"}
        if "pyo3" in uses and name != KNOWS_PYTHON:
            yield f"{name} knows Python; only {KNOWS_PYTHON} may"
        manifest = pathlib.Path(package["manifest_path"]).read_text()
        if "[lints]\nworkspace = true" not in manifest:
            # Else clippy's rule that every unsafe block gives its reason would not reach it.
            yield f"{name} does not take the workspace's lints"
        if name in LAYERS:
            for extra in sorted((uses & own) - LAYERS[name]):
                yield f"{name} may not use {extra}"


def main() -> int:
    found = 0
    long = []
    for path in tracked():
        for number, what in check(path):
            print(f"{path.relative_to(ROOT)}:{number}: {what}")
            found += 1
        if path.suffix in (".rs", ".py"):
            lines = path.read_text().count("\n")
            if lines > MANY_LINES:
                long.append(f"{path.relative_to(ROOT)} ({lines})")
    for what in layers():
        print(f"Cargo.toml: {what}")
        found += 1
    if long:
        print("over 800 lines: " + ", ".join(long))
    print(f"tools/lint.py: {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
