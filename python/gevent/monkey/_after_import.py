"""Doing something with a module of the standard library when, and only if, it is imported."""

import sys


def after_import(name, call):
    """Call *call* with the module *name*: now, if it is imported already, or when it will be."""
    module = sys.modules.get(name)
    if module is not None and not getattr(module.__spec__, "_initializing", False):
        call(module)
        return
    for finder in sys.meta_path:
        if type(finder) is _Finder:
            break
    else:
        finder = _Finder()
        sys.meta_path.insert(0, finder)
    finder.calls[name] = call


class _Finder:
    """Finds what the other finders find, with a loader that calls afterwards."""

    def __init__(self):
        self.calls = {}

    def find_spec(self, name, path=None, target=None):
        if name not in self.calls:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is None:
                continue
            if spec.loader is not None:
                spec.loader = _Loader(spec.loader, self.calls.pop(name))
            return spec
        return None


class _Loader:
    """A module's loader, which it stays to whoever asks for its attributes."""

    def __init__(self, loader, call):
        self._loader = loader
        self._call = call

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        # The module, and pickle, and inspect, see the loader that it really has.
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._call(module)
