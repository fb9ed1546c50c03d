"""THIRD-PARTY-NOTICES.txt: the licences of all crates that are linked into the wheel.

    notices.py [--check]

Writes the file anew from the crates that Cargo.lock names, for the system of the wheels. With
`--check` it writes nothing, and fails if the file is not what it would write. Where a crate
offers a choice of licences, MIT is taken.
"""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE = ROOT / "THIRD-PARTY-NOTICES.txt"
WHEEL = "gevent-pyo3-bindings"
TARGET = "x86_64-unknown-linux-gnu"
TEXT = re.compile(r"(?i)^(licen[sc]e|copying|notice|copyright)")

HEAD = """\
gevent's wheel contains a compiled library into which the following crates are linked. Each stands
under the licence that is named beside it; the texts follow. Made by tools/notices.py.

"""


def linked() -> list[dict]:
    """The packages of cargo's metadata that are linked into the wheel, ours left out."""
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform", TARGET]
    out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    metadata = json.loads(out)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    seen: set[str] = set()
    left = [package["id"] for package in metadata["packages"] if package["name"] == WHEEL]
    while left:
        at = left.pop()
        kinds = [kind for target in packages[at]["targets"] for kind in target["kind"]]
        # A procedural macro runs in the compiler and leaves nothing of its own behind.
        if at in seen or "proc-macro" in kinds:
            continue
        seen.add(at)
        for dependency in nodes[at]["deps"]:
            # Neither those of builds nor those of tests.
            is_linked = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            left += [dependency["pkg"]] if is_linked else []
    others = [packages[at] for at in seen if packages[at]["source"]]
    return sorted(others, key=lambda package: (package["name"], package["version"]))


def texts(package: dict) -> list[str]:
    """The texts that have to go with the crate: its notices, and a licence of those it offers."""
    folder = pathlib.Path(package["manifest_path"]).parent
    files = sorted(path for path in folder.iterdir() if TEXT.match(path.name) and path.is_file())
    licence = package["license"] or ""
    is_choice = re.search(r"\bMIT\b", licence) and " AND " not in licence
    mit = [path for path in files if "mit" in path.name.lower()]
    if is_choice and mit:
        others = [path for path in files if re.match(r"(?i)notice|copyright", path.name)]
        files = mit + others
    return [path.read_text(encoding="utf-8", errors="replace").strip() for path in files]


def notices() -> str:
    packages = linked()
    rows = [f"{p['name']} {p['version']}: {p['license'] or 'see its text'}" for p in packages]
    by_text: dict[str, list[str]] = {}
    for package in packages:
        found = texts(package)
        if not found:
            raise SystemExit(f"{package['name']} {package['version']} has no licence text")
        for text in found:
            by_text.setdefault(text, []).append(f"{package['name']} {package['version']}")
    parts = [f"{'=' * 80}\n{', '.join(names)}\n\n{text}\n" for text, names in by_text.items()]
    return HEAD + "\n".join(rows) + "\n\n" + "\n".join(parts)


def main() -> int:
    text = notices()
    if "--check" not in sys.argv[1:]:
        FILE.write_text(text, encoding="utf-8")
        return 0
    if FILE.exists() and FILE.read_text(encoding="utf-8") == text:
        return 0
    print(f"{FILE.name} is not that of Cargo.lock: run tools/notices.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
