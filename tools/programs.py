"""Real programs with their real servers, unchanged, on each loop: the tests of tests/programs.

    programs.py [--quick] [--jobs N] [--loop NAME] [FILE ...]

Makes a virtual environment with the programs in it (`.venv-programs`), which sees the gevent that
was built here; its requirements have to be satisfied by that. Starts the servers once for all.
`--quick` takes the sizes of `make test`. What cannot be installed is skipped by name. Ends with
`N passed, N failed, N skipped`.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import pathlib
import sys
import sysconfig

import runs

FOLDER = runs.ROOT / "tests" / "programs"
REQUIREMENTS = FOLDER / "requirements.txt"
LIMIT = 600

sys.path.insert(0, str(FOLDER))
import servers  # noqa: E402


class Unavailable(Exception):
    """The programs cannot be installed here."""


def environment() -> pathlib.Path:
    """The interpreter of the environment with the programs; made at the first use."""
    folder = runs.ROOT / ".venv-programs"
    python = folder / "bin" / "python"
    ready = folder / ".ready"
    wanted = f"{sys.version}\n{REQUIREMENTS.read_text()}"
    if ready.exists() and ready.read_text() == wanted:
        return python
    commands = [
        [sys.executable, "-m", "venv", "--clear", folder],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]
        + [REQUIREMENTS],
        # Somebody who asks for `gevent>=...` and `greenlet` has to be content with what is here.
        [python, "-m", "pip", "check", "--disable-pip-version-check"],
    ]
    for command in commands:
        done = runs.run(command, 900)
        if done.code != 0:
            raise Unavailable(f"{command[3]}: {done.ending()}\n{done.tail(15)}")
        if command is commands[0]:
            tag = f"python{sys.version_info.major}.{sys.version_info.minor}"
            site = folder / "lib" / tag / "site-packages"
            ours = sysconfig.get_path("purelib")
            (site / "gevent-here.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    ready.write_text(wanted)
    return python


@contextlib.contextmanager
def running(wanted: dict):
    """Variables for the tests, and a note for each server that is not there."""
    env, notes = {}, []
    with contextlib.ExitStack() as stack:
        for name, server in wanted.items():
            try:
                env |= stack.enter_context(server())
            except servers.Missing as missing:
                notes.append(f"skipped: {name} ({missing})")
        yield env, notes


def test(python: pathlib.Path, path: pathlib.Path, loop: str, env: dict[str, str]) -> runs.Count:
    name = f"{path.relative_to(runs.ROOT)} [{loop}]"
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", FOLDER / "pytest.ini"]
    own = {"GEVENT_LOOP": loop, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONFAULTHANDLER": "1"}
    with running(servers.OWN) as (more, missing):
        done = runs.run([*command, "--rootdir", FOLDER, path], LIMIT, {**own, **env, **more})
    count = runs.count_pytest(done, name)
    count.notes += missing
    print(f"{name:<44} {count}  ({done.seconds:.0f} s)", flush=True)
    if count.failed:
        print(f"FAILED {name}: {done.ending()}\n{done.tail(80)}", flush=True)
    return count


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--loop", action="append")
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    options = parser.parse_args()
    loops, notes = (options.loop, []) if options.loop else runs.loops()
    files = [path.resolve() for path in options.files] or sorted(FOLDER.glob("test_*.py"))
    total = runs.Count(skipped=len(notes), notes=notes)
    try:
        python = environment()
    except Unavailable as why:
        print(f"skipped: {', '.join(path.name for path in files)} ({why})")
        print(runs.Count(skipped=len(files)))
        return 0
    with (
        running(servers.SHARED) as (env, missing),
        concurrent.futures.ThreadPoolExecutor(options.jobs) as pool,
    ):
        total.notes += missing
        if not options.quick:
            env["PROGRAMS_FULL"] = "1"
        work = [(path, loop) for loop in loops for path in files]
        for count in pool.map(lambda one: test(python, *one, env), work):
            total += count
    return total.end()


if __name__ == "__main__":
    sys.exit(main())
