"""Imports a library so that it sees gevent's modules, while everybody else sees what they saw."""

import importlib
import platform
import sys
from contextlib import contextmanager

from gevent._compat import imp_acquire_lock, imp_release_lock

#: gevent's modules, and the modules of the standard library that they replace.
MAPPING = {
    "gevent.local": "_threading_local",
    "gevent.socket": "socket",
    "gevent.select": "select",
    "gevent.selectors": "selectors",
    "gevent.ssl": "ssl",
    "gevent.thread": "_thread",
    "gevent.subprocess": "subprocess",
    "gevent.os": "os",
    "gevent.threading": "threading",
    "gevent.builtins": "builtins",
    "gevent.signal": "signal",
    "gevent.time": "time",
    "gevent.queue": "queue",
    "gevent.contextvars": "contextvars",
}

#: Modules of the standard library that an interpreter may have been built without.
OPTIONAL_STDLIB_MODULES = frozenset()

_PATCH_PREFIX = "__g_patched_module_"


def _collect_stdlib_gevent_modules():
    """Import gevent's modules and return them by the name of the module that each replaces."""
    result = {}
    for gevent_name, stdlib_name in MAPPING.items():
        try:
            result[stdlib_name] = importlib.import_module(gevent_name)
        except ImportError:  # noqa: PERF203 (once)
            if stdlib_name not in OPTIONAL_STDLIB_MODULES:
                raise
    return result


class _SysModulesPatcher:
    """Imports the library *importing* with ``sys.modules`` exchanged, and keeps what came of it.

    The imported module is `module`. *extra_all* takes the name of a module and returns names of
    submodules to import besides those in its ``__all__``.
    """

    module = None

    def __init__(self, importing, extra_all=lambda mod_name: ()):
        self.importing = importing
        self.extra_all = extra_all
        # What the library sees: gevent's modules, and its own once they have been imported.
        self._green_modules = _collect_stdlib_gevent_modules()

    def _take_own(self):
        """Remove the library's modules from ``sys.modules`` and return them."""
        names = [name for name in list(sys.modules) if name.startswith(self.importing)]
        return {name: sys.modules.pop(name) for name in names}

    @contextmanager
    def _exchanged(self):
        imp_acquire_lock()
        try:
            before = {name: sys.modules.get(name) for name in self._green_modules}
            before.update(self._take_own())
            sys.modules.update(self._green_modules)
            try:
                yield
            finally:
                self._green_modules.update(self._take_own())
                for name, module in before.items():
                    if module is not None:
                        sys.modules[name] = module
                    else:
                        sys.modules.pop(name, None)
        finally:
            imp_release_lock()

    def __call__(self, after_import_hook):
        if self.module is None:
            with self._exchanged():
                self.module = self.import_one(self.importing, after_import_hook)
                # Somebody has to keep the other modules alive.
                self.module.__gevent_patcher__ = self
                sys.modules[_PATCH_PREFIX + self.importing] = self.module
        return self

    def import_one(self, module_name, after_import_hook):
        """Import *module_name*, unless that was done before, and call the hook with it."""
        known = sys.modules.get(_PATCH_PREFIX + module_name)
        if known is not None:
            return known
        assert module_name.startswith(self.importing)
        sys.modules.pop(module_name, None)
        self.module = importlib.import_module(module_name)
        self._import_all([self.module])
        after_import_hook(self.module)
        return self.module

    def _import_all(self, queue):
        """Import, in order, the submodules that the modules in *queue* name, and theirs."""
        while queue:
            module = queue.pop(0)
            name = module.__name__
            for attr in (*getattr(module, "__all__", ()), *self.extra_all(name)):
                if not hasattr(module, attr):
                    submodule = importlib.import_module(f"{name}.{attr}")
                    setattr(module, attr, submodule)
                    queue.append(submodule)


def import_patched(
    module_name, extra_all=lambda mod_name: (), after_import_hook=lambda module: None
):
    """Import the library *module_name* so that it uses gevent's modules.

    Returns an object whose ``module`` is the library's module, a new one that is not seen by other
    importers. What its ``__all__`` names is imported with it, and so are the submodules that
    ``extra_all(name)`` returns. *after_import_hook* is called with the module before anybody else
    sees it.
    """
    patcher = _SysModulesPatcher(module_name, extra_all)
    with cached_platform_architecture():
        patcher(after_import_hook)
    return patcher


class cached_platform_architecture:
    """Lets ``platform.architecture()`` answer at once.

    It starts a process to find out. Libraries call it at import, and a fork in the middle of an
    import with exchanged modules would need a hub too early.
    """

    _original = None

    def __enter__(self):
        self._original = original = platform.architecture
        answer = original()

        def architecture(*args, **kwargs):
            return original(*args, **kwargs) if args or kwargs else answer

        platform.architecture = architecture
        return self

    def __exit__(self, *_args):
        platform.architecture = self._original
