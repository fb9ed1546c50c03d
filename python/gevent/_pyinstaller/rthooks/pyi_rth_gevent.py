"""At the start of a frozen program: has ``import greenlet`` find gevent's, before gevent is there.

Nothing is imported before it is asked for: a program may have settings to make first.
"""


def _install():
    import os
    import sys
    from importlib.machinery import ModuleSpec
    from importlib.util import find_spec

    class Loader:
        """Runs the code of ``gevent._greenlet`` under the name ``greenlet``."""

        def __init__(self, loader):
            self.loader = loader

        def create_module(self, spec):
            return None

        def exec_module(self, module):
            exec(self.loader.get_code("gevent._greenlet"), vars(module))

    class Finder:
        """Knows one name."""

        @staticmethod
        def find_spec(name, path=None, target=None):
            if name != "greenlet":
                return None
            gevent = find_spec("gevent")
            folders = gevent and gevent.submodule_search_locations
            for finder in sys.meta_path if folders else ():
                if finder is Finder:
                    continue
                found = finder.find_spec("gevent._greenlet", folders)
                if found is not None:
                    loader, file = Loader(found.loader), found.origin
                    spec = ModuleSpec(name, loader, origin=file, is_package=True)
                    spec.has_location = True
                    spec.submodule_search_locations.append(os.path.dirname(file))
                    return spec
            return None

    sys.meta_path.insert(0, Finder)


_install()
del _install
