"""Writes down every name, private ones too, that the modules of this interpreter's gevent define.

    PURE_PYTHON=1 dump_surface.py > tests/python/upstream_surface.json

Module by module the functions and classes that are defined in it, with the members of classes.
tools/api_dump.py does it for public names, with their parameters; this is for the private ones that
programs and upstream's tests reach for. Upstream's classes show members only with PURE_PYTHON=1.
"""

import importlib
import inspect
import json
import pkgutil
import sys
import warnings

# Upstream's tests, and the loops that are not here: only their modules have to import.
LEFT_OUT = ("gevent.tests", "gevent.testing", "gevent.libuv", "gevent.libev", "gevent._ffi")
# Compiled twins, build scripts and programs.
NO_MODULES = ("_gevent_c", "_corecffi", "__main__", "cares")


def mangled(name):
    return name.startswith("__") or "__" in name[1:]


def names_of(module):
    found = {}
    for name, value in vars(module).items():
        if name.startswith("__") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            found[name] = sorted(member for member in vars(value) if not mangled(member))
        elif callable(value):
            found[name] = None
    return found


def main():
    warnings.simplefilter("ignore")
    import gevent

    found = {}
    packages = pkgutil.walk_packages(gevent.__path__, "gevent.", lambda _: None)
    for name in ["gevent", *sorted(info.name for info in packages)]:
        if name.startswith(LEFT_OUT) or any(part in name for part in NO_MODULES):
            continue
        try:
            found[name] = names_of(importlib.import_module(name))
        except ImportError as error:
            print(f"{name}: {error}", file=sys.stderr)
    json.dump({k: v for k, v in found.items() if v}, sys.stdout, indent=0, sort_keys=True)
    print()


if __name__ == "__main__":
    main()
