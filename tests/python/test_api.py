"""Every module, name, method and parameter of upstream is here, and may be called as there.

`upstream_api.json` is what tools/api_dump.py wrote on upstream's release under CPython 3.11. What
this project has beyond it must be optional.
"""

import importlib
import inspect
import json
import pathlib
import sys

import pytest

UPSTREAM = json.loads(pathlib.Path(__file__).with_name("upstream_api.json").read_text())


def words_of(function):
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tools"))
    try:
        import api_dump
    finally:
        sys.path.pop(0)
    return api_dump.parameters(function)


def split(words):
    """Positional names in order with whether each may be left out, keyword-only names, stars."""
    positional, keywords, stars = [], {}, set()
    for word in words.split():
        optional = word.endswith("=")
        name = word.rstrip("=")
        if name.startswith("kw:"):
            keywords[name[3:]] = optional
        elif name.startswith("*"):
            stars.add(name.rstrip("abcdefghijklmnopqrstuvwxyz_"))
        else:
            positional.append((name, optional))
    return positional, keywords, stars


def complaint(theirs, ours):
    """Why a call that upstream takes could fail here, or None."""
    if theirs is None or ours is None or theirs in ("attribute", "*args **kwargs", ours):
        return None
    want, want_keywords, want_stars = split(theirs)
    have, have_keywords, have_stars = split(ours)
    for place, (name, optional) in enumerate(want):
        if place >= len(have):
            if name.startswith("_") and optional:
                continue
            if "*" in have_stars and ("**" in have_stars or not optional):
                continue
            return f"parameter {name} is missing"
        if have[place][0] != name and not name.startswith("_"):
            return f"parameter {place + 1} is {have[place][0]}, upstream's is {name}"
        if optional and not have[place][1]:
            return f"parameter {name} has no default"
    for name, optional in have[len(want) :]:
        if not optional and "*" not in want_stars:
            return f"parameter {name} is ours alone and has no default"
    names = {name for name, _ in have} | set(have_keywords)
    for name in want_keywords:
        if name not in names and "**" not in have_stars:
            return f"keyword {name} is missing"
    if len(have) > len(want):
        # The arguments that upstream passes on unnamed have names here.
        want_stars = want_stars - {"*"}
    if want_stars - have_stars:
        return f"{want_stars - have_stars} is missing"
    return None


#: What is not there yet, and what it waits for. One that begins to pass fails, and leaves the list.
LATER = {}


def modules():
    def marks(name):
        return [pytest.mark.xfail(reason=LATER[name], strict=True)] if name in LATER else []

    return [pytest.param(name, marks=marks(name)) for name in sorted(UPSTREAM)]


@pytest.mark.parametrize("module_name", modules())
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the list was made on CPython 3.11")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_module_offers_what_upstream_offers(module_name):
    module = importlib.import_module(module_name)
    wrong = []

    def compare(what, theirs, value):
        said = complaint(theirs, words_of(value)) if callable(value) else None
        if said:
            wrong.append(f"{what}: {said}")

    for name, described in UPSTREAM[module_name].items():
        if not hasattr(module, name):
            wrong.append(f"{name} is missing")
            continue
        value = getattr(module, name)
        if "function" in described:
            compare(name, described["function"], value)
        if "class" in described:
            if not inspect.isclass(value):
                wrong.append(f"{name} is not a class")
                continue
            compare(name, described["init"], value)
            for method, theirs in described["class"].items():
                if not hasattr(value, method):
                    wrong.append(f"{name}.{method} is missing")
                elif theirs != "attribute":
                    plain = inspect.getattr_static(value, method)
                    plain = getattr(plain, "__func__", plain)
                    compare(f"{name}.{method}", theirs, plain)
    if sys.version_info[:2] != (3, 11):
        # Other versions of the standard library bring other names with them.
        wrong = [line for line in wrong if not line.endswith("is missing")]
    assert not wrong, "\n".join(wrong)
