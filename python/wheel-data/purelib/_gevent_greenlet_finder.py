"""Makes ``import greenlet`` find gevent's greenlet, in whatever order the two are imported.

``gevent-greenlet.pth`` imports this at interpreter start, so it does next to nothing: what it needs
is loaded by then, and gevent is looked for only when somebody asks for ``greenlet``.
"""

import sys
from _frozen_importlib_external import PathFinder, spec_from_file_location


class Finder:
    """The first entry of ``sys.meta_path``; knows one name."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "greenlet":
            return None
        gevent = PathFinder.find_spec("gevent")
        if gevent is None or not gevent.submodule_search_locations:
            return None
        for folder in gevent.submodule_search_locations:
            package = f"{folder}/_greenlet"
            init = f"{package}/__init__.py"
            try:
                open(init, "rb").close()
            except OSError:
                continue  # upstream's gevent: it uses the real greenlet
            return spec_from_file_location(name, init, submodule_search_locations=[package])
        return None


if Finder not in sys.meta_path:
    sys.meta_path.insert(0, Finder)
