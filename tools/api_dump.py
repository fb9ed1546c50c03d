"""Writes down what the gevent of this interpreter offers: modules, names, methods, parameters.

    api_dump.py [ALSO_IN] > api.json

Names only, no text of anybody's. Upstream's dump is kept in tests/python/upstream_api.json, and
tests/python/test_api.py holds this project to it. Upstream shows all parameters only with
PURE_PYTHON=1, and then some attributes that its compiled classes do not have: dump it compiled
first, and then pure with the name of the first dump.
"""

import importlib
import inspect
import json
import pkgutil
import sys
import types
import warnings

SKIP = ("gevent.tests", "gevent.testing", "gevent.libuv", "gevent.libev", "gevent._ffi")
# Names that every module may have and nobody imports from it.
PLUMBING = {"absolute_import", "print_function", "division"}


SIGNS = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**", "KEYWORD_ONLY": "kw:"}


def parameters(function):
    """The parameters as words (`a`, `b=`, `*args`, `kw:c=`, `**kwargs`); None where unknown."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    words = []
    for p in signature.parameters.values():
        default = "" if p.default is p.empty else "="
        words.append(SIGNS.get(p.kind.name, "") + p.name + default)
    # A native class method shows what it is bound to as `type`.
    native = inspect.isroutine(function) and not inspect.isfunction(function)
    bound = words[:1] in (["self"], ["cls"]) or (native and words[:1] == ["type"])
    words = words[1:] if bound else words
    # What CPython 3.13 says of a native method of one argument that says nothing itself.
    return None if native and words == ["object"] else " ".join(words)


def methods(cls):
    """Public methods and attributes that gevent's own classes in the MRO define."""
    found = {}
    for base in reversed(cls.__mro__):
        if not (base.__module__ or "").startswith("gevent"):
            continue
        for name, value in vars(base).items():
            if name.startswith("_"):
                continue
            plain = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
            found[name] = parameters(plain) if callable(plain) else "attribute"
    return found


def is_mirrored(module, name, value):
    """Whether it is just the standard library's, which each version of Python has its own of."""
    if (getattr(value, "__module__", None) or "").startswith("gevent"):
        return False
    standard = module.__name__.rpartition(".")[2].replace("thread", "_thread", 1)
    standard = {"_threading": "threading", "_threadpool": "concurrent"}.get(standard, standard)
    if standard not in sys.stdlib_module_names:
        return False
    return hasattr(importlib.import_module(standard), name)


def describe(module):
    names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    found = {}
    for name in sorted(n for n in set(names) - PLUMBING if not n.startswith("_")):
        value = getattr(module, name, None)
        if isinstance(value, types.ModuleType) or is_mirrored(module, name, value):
            continue
        own = (getattr(value, "__module__", None) or "").startswith("gevent")
        if not own and not hasattr(module, "__all__"):
            continue
        if own and inspect.isclass(value):
            found[name] = {"class": methods(value), "init": parameters(value)}
        elif own and callable(value):
            found[name] = {"function": parameters(value)}
        else:
            found[name] = {}
    return found


def common(found, other):
    """What of `found` is in `other` too."""
    for module in list(found):
        for name, described in list(found[module].items()):
            if name not in other.get(module, {}):
                del found[module][name]
            elif "class" in described:
                there = other[module][name].get("class", {})
                described["class"] = {k: v for k, v in described["class"].items() if k in there}
    return found


def main():
    warnings.simplefilter("ignore")
    import gevent

    found = {}
    names = [m.name for m in pkgutil.walk_packages(gevent.__path__, "gevent.", lambda _: None)]
    for name in ["gevent", *sorted(names)]:
        private = any(part.startswith("_") for part in name.split("."))
        if private or name.startswith(SKIP) or name.endswith("__main__"):
            continue
        try:
            found[name] = describe(importlib.import_module(name))
        except (ImportError, SystemExit) as error:
            print(f"{name}: {error}", file=sys.stderr)
    for path in sys.argv[1:]:
        with open(path) as source:
            common(found, json.load(source))
    json.dump(found, sys.stdout, indent=0, sort_keys=True)
    print()


if __name__ == "__main__":
    main()
