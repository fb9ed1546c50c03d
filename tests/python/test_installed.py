"""What the wheel brings besides the package: greenlet's header, and hooks for PyInstaller."""

import ast
import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest
from scripts import SCALE, lines_of

import gevent

pytestmark = pytest.mark.ours

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
#: Where pip lays the headers of the real greenlet's wheel, and so ours.
PLACES = {
    "in a virtual environment": pathlib.Path(sys.prefix, "include", "site", VERSION),
    "outside of one": pathlib.Path(sys.prefix, "include", VERSION),
}

MODULE = """
#include <Python.h>
#include <greenlet/greenlet.h>

static PyObject *current(PyObject *self, PyObject *unused)
{
    return (PyObject *)PyGreenlet_GetCurrent();
}

static PyObject *run(PyObject *self, PyObject *function)
{
    PyGreenlet *g = PyGreenlet_New(function, NULL);
    if (g == NULL) {
        return NULL;
    }
    int new = !PyGreenlet_STARTED(g) && !PyGreenlet_ACTIVE(g) && !PyGreenlet_MAIN(g);
    PyObject *result = PyGreenlet_Switch(g, NULL, NULL);
    Py_DECREF(g);
    return result ? Py_BuildValue("(iN)", new, result) : NULL;
}

static PyMethodDef methods[] = {
    {"current", current, METH_NOARGS},
    {"run", run, METH_O},
    {NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "of_the_header", 0, -1, methods};

PyMODINIT_FUNC PyInit_of_the_header(void)
{
    PyGreenlet_Import();
    return _PyGreenlet_API ? PyModule_Create(&definition) : NULL;
}
"""


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
@pytest.mark.parametrize("place", PLACES)
def test_a_module_is_compiled_with_the_header_where_greenlet_has_it(place, tmp_path):
    (tmp_path / "module.c").write_text(MODULE)
    built = subprocess.run(
        ["cc", "-shared", "-fPIC", "module.c", "-o", "of_the_header.so"]
        + ["-I", sysconfig.get_path("include"), "-I", str(PLACES[place])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60 * SCALE,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert lines_of(
        """
        import of_the_header, greenlet
        print(of_the_header.current() is greenlet.getcurrent())
        print(of_the_header.run(lambda: "ran"))
        """,
        PYTHONPATH=str(tmp_path),
    ) == ["True", "(1, 'ran')"]


class TestPyInstaller:
    @pytest.fixture
    def hooks(self):
        """The folder that PyInstaller finds by the entry point."""
        points = importlib.metadata.entry_points(group="pyinstaller40", name="hook-dirs")
        ours = [point for point in points if point.module.startswith("gevent.")]
        folders = {folder for point in ours for folder in point.load()()}
        assert len(folders) == 1
        return pathlib.Path(folders.pop())

    @pytest.fixture
    def at_run_time(self, hooks):
        """The script that runs first in a frozen program that has gevent in it."""
        names = ast.literal_eval((hooks / "rthooks.dat").read_text())
        assert list(names) == ["gevent"]
        (name,) = names["gevent"]
        return hooks / "rthooks" / name

    def test_greenlet_means_gevents_when_a_program_is_analysed(self, hooks):
        scope = {}
        script = (hooks / "pre_safe_import_module" / "hook-greenlet.py").read_text()
        exec(compile(script, "hook-greenlet.py", "exec"), scope)

        class Api:
            module_name = "greenlet"
            aliases = []

            def add_alias_module(self, real, alias):
                self.aliases.append((real, alias))

        scope["pre_safe_import_module"](Api())
        assert Api.aliases == [("gevent._greenlet", "greenlet")]

    def run_without_site(self, source):
        """As in a frozen program: no start-up file of site-packages is read."""
        paths = [str(pathlib.Path(gevent.__file__).parent.parent)]
        paths += [path for path in sys.path if path.endswith("site-packages")]
        done = subprocess.run(
            [sys.executable, "-S", "-I", "-c", f"import sys; sys.path += {paths}\n{source}"],
            capture_output=True,
            text=True,
            timeout=30 * SCALE,
            check=False,
            env={**os.environ},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def test_greenlet_can_be_imported_first(self, at_run_time):
        out = self.run_without_site(
            f"exec(open({str(at_run_time)!r}).read())\n"
            "print('gevent' in sys.modules)\n"
            "import greenlet\n"
            "print('gevent.hub' in sys.modules, greenlet.greenlet(lambda: 42).switch())\n"
            "import gevent\n"
            "print(issubclass(gevent.Greenlet, greenlet.greenlet), greenlet is gevent._greenlet)\n"
            "print(gevent.spawn(lambda: 7).get())\n"
        )
        assert out == ["False", "False 42", "True True", "7"]

    def test_and_after_gevent(self, at_run_time):
        out = self.run_without_site(
            f"exec(open({str(at_run_time)!r}).read())\n"
            "import gevent, greenlet\n"
            "print(greenlet is gevent._greenlet)\n"
        )
        assert out == ["True"]

    def test_other_names_are_left_to_others(self, at_run_time):
        out = self.run_without_site(
            f"exec(open({str(at_run_time)!r}).read())\n"
            "import json\n"
            "from importlib.util import find_spec\n"
            "print(json.loads('1'), find_spec('greenlet_of_nobody'))\n"
        )
        assert out == ["1 None"]
