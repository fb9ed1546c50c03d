"""gevent works in the main interpreter: a subinterpreter is refused in a sentence."""

import importlib

import pytest
from scripts import lines_of

pytestmark = pytest.mark.ours


def module():
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            return importlib.import_module(name).__name__
        except ImportError:
            pass
    return pytest.skip("this interpreter has no module for subinterpreters")


TRY = '''
import {module} as interpreters

def refused():
    there = interpreters.create()
    code = """if 1:
        try:
            import {name}
        except ImportError as error:
            print("ImportError", "subinterpreter" in str(error), flush=True)
        """
    interpreters.run_string(there, code)
    interpreters.destroy(there)
'''

USE = """
import gevent
print(gevent.spawn(lambda: 7).get(timeout=30), flush=True)
"""


@pytest.mark.parametrize("name", ["gevent", "gevent._core", "gevent.monkey", "greenlet"])
def test_a_subinterpreter_is_refused_before_and_after(name):
    attempt = TRY.format(module=module(), name=name)
    lines = lines_of(attempt + "refused()\nrefused()\n" + USE + "refused()\n" + USE)
    refusal = "ImportError True"
    assert lines == [refusal, refusal, "7", refusal, "7"]
