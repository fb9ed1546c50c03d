"""The wheel built and tested on every CPython that can be had here.

    matrix.py [VERSION ...]          e.g. matrix.py 3.10 3.14

3.10 to 3.13 are looked for on PATH and among pyenv's versions. 3.14 and 3.15 too, and else they
come from a Debian sid chroot, which debootstrap makes at first use (root only). Each version gets
its own virtual environment with the wheel installed in it, not the source tree, and runs the steps
`greenlet`, `python` and `upstream` of tools/ladder.py. What could not be had is named as skipped.
Ends with `N passed, N failed, N skipped`.
"""

from __future__ import annotations

import glob
import os
import pathlib
import re
import shutil
import subprocess
import sys

import runs

VERSIONS = ["3.10", "3.11", "3.12", "3.13", "3.14", "3.15"]
FROM_SID = ["3.14", "3.15"]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
CACHE = CACHE / "gevent-matrix"
# In the chroot nothing of the outside is on PATH, and cargo's own folder comes first.
INSIDE_PATH = ":".join(
    [
        os.path.join(os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo"), "bin"),
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]
)


def is_version(python: str, version: str) -> bool:
    code = "import sys; print('%d.%d' % sys.version_info[:2], sys.implementation.name)"
    try:
        out = subprocess.run(
            [python, "-c", code], capture_output=True, text=True, timeout=30, check=False
        ).stdout
    except OSError:
        return False
    return out.split() == [version, "cpython"]


def native(version: str) -> str | None:
    """An interpreter of that version on this machine."""
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    found = [shutil.which(f"python{version}")]
    found += sorted(glob.glob(f"{pyenv}/versions/{version}.*/bin/python3"), reverse=True)
    return next((python for python in found if python and is_version(python, version)), None)


def sid() -> tuple[pathlib.Path | None, str]:
    """The chroot with 3.14 and 3.15, or why there is none."""
    folder = CACHE / "sid"
    if (folder / ".ready").exists():
        return folder, ""
    if os.geteuid() != 0:
        return None, "a chroot needs root"
    runs.run(["tools/setup.sh", "debootstrap"], 400)
    if not shutil.which("debootstrap"):
        return None, "no debootstrap"
    folder.mkdir(parents=True, exist_ok=True)
    packages = ["gcc", "libc6-dev", "ca-certificates", "curl"]
    for version in FROM_SID:
        packages += [f"python{version}", f"python{version}-dev", f"python{version}-venv"]
    command = ["debootstrap", "--variant=minbase", "--include=" + ",".join(packages), "sid", folder]
    done = runs.run(command, 900)
    if done.code != 0:
        print(done.tail(20))
        shutil.rmtree(folder, ignore_errors=True)
        return None, f"debootstrap: {done.ending()}"
    (folder / ".ready").touch()
    return folder, ""


def one(version: str) -> tuple[runs.Count, str]:
    """Builds and tests one version; the counts, or zero and the reason for skipping it."""
    python, prefix, env = native(version), [], {}
    if python is None:
        if version not in FROM_SID:
            return runs.Count(), "no such interpreter here"
        chroot, why = sid()
        if chroot is None:
            return runs.Count(), why
        python, prefix = f"/usr/bin/python{version}", ["tools/in-chroot.sh", chroot]
        env["PATH"] = INSIDE_PATH
        if not (chroot / python[1:]).exists():
            return runs.Count(), "not in the chroot"

    home = pathlib.Path("/opt" if prefix else CACHE) / f"gevent-cp{version}"
    wheels = runs.ROOT / "dist" / f"cp{version}"
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir(parents=True)
    inner = home / "bin" / "python"
    env |= {"PYO3_PYTHON": str(inner), "VIRTUAL_ENV": str(home), "PYTHONPATH": ""}
    wheel = f"{wheels}/*.whl"
    if prefix:
        env["CARGO_NET_OFFLINE"] = "true"
        # The chroot's linker and libraries are others than the machine's.
        env["CARGO_TARGET_DIR"] = str(runs.ROOT / "target" / "sid")
        runs.run(["cargo", "fetch", "--locked"], 300)
    steps = [
        ([python, "-m", "venv", "--clear", home], 120),
        ([inner, "-m", "pip", "install", "-q", "-r", "tools/requirements.txt"], 600),
        (
            [inner, "-m", "maturin", "build", "--quiet", "--locked", "--release"]
            + ["--compatibility", "linux", "--interpreter", inner, "--out", wheels],
            1500,
        ),
        (["sh", "-c", f"{inner} -m pip install -q --force-reinstall --no-deps {wheel}"], 120),
    ]
    for command, limit in steps:
        done = runs.run([*prefix, *command], limit, env)
        if done.code != 0:
            print(f"{version}: {' '.join(map(str, command))}: {done.ending()}\n{done.tail(30)}")
            return runs.Count(failed=1), ""
    done = runs.run(
        [*prefix, inner, "tools/ladder.py", "greenlet", "python", "upstream"], 3600, env
    )
    print(done.tail(400) if done.code else done.tail(12), flush=True)
    ends = re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", done.out, re.M)
    count = runs.Count(*map(int, ends[-1])) if ends else runs.Count(failed=1)
    if done.code != 0:
        count.failed = max(count.failed, 1)
    return count, ""


def main() -> int:
    total, rows = runs.Count(), []
    for version in sys.argv[1:] or VERSIONS:
        print(f"== CPython {version}", flush=True)
        count, why = one(version)
        rows.append(f"CPython {version}: {f'skipped: {why}' if why else count}")
        print(rows[-1], flush=True)
        total += count
        total.skipped += bool(why)
    print("\n" + "\n".join(rows))
    print(total)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
