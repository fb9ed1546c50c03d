"""Deep recursion in a greenlet ends in RecursionError, not in a crash.

Each pattern recurses through a different part of the interpreter, and runs in a process of its own,
in a greenlet with the default stack.
"""

import sys
import textwrap

import pytest
import scripts

pytestmark = pytest.mark.ours

PRELUDE = """
import functools, json, pickle, re, sys
import greenlet
sys.setrecursionlimit(1000)
"""

RUN = """
def run():
    try:
        result = pattern()
        if hasattr(result, '__next__'):
            next(result)
        return 'ended'
    except (RecursionError, MemoryError) as error:
        return type(error).__name__
for again in range(2):
    print(greenlet.greenlet(run).switch())
"""

# name: (source, what it may end as)
RECURSION = ("RecursionError",)
EITHER = ("RecursionError", "ended", "MemoryError")
PATTERNS = {
    "plain": ("def pattern(): pattern()", RECURSION),
    "repr": (
        "class R:\n def __repr__(self): return repr([R()])\ndef pattern(): repr(R())",
        RECURSION,
    ),
    "str": ("class S:\n def __str__(self): return '%s' % S()\ndef pattern(): str(S())", RECURSION),
    "eq": (
        "class E:\n def __eq__(self, o): return [E()] == [E()]\ndef pattern(): E() == E()",
        RECURSION,
    ),
    "hash": (
        "class H:\n def __hash__(self): return hash((H(),))\ndef pattern(): hash(H())",
        RECURSION,
    ),
    "add": ("class A:\n def __add__(self, o): return A() + 1\ndef pattern(): A() + 1", RECURSION),
    "getattr": (
        "class G:\n def __getattr__(self, n): return getattr(G(), n)\ndef pattern(): G().x",
        RECURSION,
    ),
    "init": ("class I:\n def __init__(self): I()\ndef pattern(): I()", RECURSION),
    "call": ("class C:\n def __call__(self): C()()\ndef pattern(): C()()", RECURSION),
    "property": (
        "class P:\n @property\n def x(self): return P().x\ndef pattern(): P().x",
        RECURSION,
    ),
    "format": (
        "class F:\n def __format__(self, s): return f'{F()}'\ndef pattern(): f'{F()}'",
        RECURSION,
    ),
    "map": ("def pattern(n=1): list(map(pattern, [n + 1]))", RECURSION),
    "reduce": ("def pattern(n=1): functools.reduce(lambda a, b: pattern(), [1, 2])", RECURSION),
    "partial": ("def pattern(n=1): functools.partial(pattern, n + 1)()", RECURSION),
    "lru_cache": ("@functools.lru_cache(None)\ndef pattern(n=1): pattern(n + 1)", RECURSION),
    "eval": ("def pattern(): eval('pattern()')", RECURSION),
    "generators": ("def pattern(n=1):\n for x in pattern(n + 1): yield x", RECURSION),
    "re_sub": ("def pattern(): re.sub('a', lambda m: pattern(), 'a')", RECURSION),
    "pickle": (
        "class K:\n def __reduce__(self): return (K, (K(),))\ndef pattern(): pickle.dumps(K())",
        RECURSION,
    ),
    "json": (
        (
            "class J: pass\n"
            "def pattern():"
            " json.dumps(J(), default=lambda o: {'a': [J()]}, check_circular=False)"
        ),
        RECURSION,
    ),
    "json_loads": ("def pattern(): json.loads('[' * 100000)", RECURSION),
    "nested_repr": (
        "def pattern():\n l = []\n for i in range(100000): l = [l]\n repr(l)",
        RECURSION,
    ),
    "nested_eq": (
        "def pattern():\n a = []; b = []\n for i in range(100000): a = [a]; b = [b]\n a == b",
        RECURSION,
    ),
    "compile_unary": ("def pattern(): compile('-' * 100000 + '1', 'x', 'eval')", EITHER),
    "compile_attributes": ("def pattern(): compile('a' + '.b' * 5000, 'x', 'eval')", EITHER),
    "compile_parentheses": (
        "def pattern(): compile('(' * 190 + '1' + ')' * 190, 'x', 'eval')",
        EITHER,
    ),
    "free_a_long_chain": (
        "def pattern():\n l = None\n for i in range(200000): l = [l]\n del l",
        ("ended",),
    ),
    "free_long_chain_of_instances": (
        (
            "class T: pass\n"
            "def pattern():\n"
            " l = None\n for i in range(100000):\n  t = T(); t.n = l; l = t\n"
            " del l, t"
        ),
        ("ended",),
    ),
}

# Patterns of which one level takes kilobytes: with a small stack they end in the sentence.
HUNGRY = {
    "sorted": "def pattern(): sorted([1], key=lambda x: pattern())",
    "ctypes": (
        "import ctypes\nT = ctypes.CFUNCTYPE(ctypes.c_int)\n"
        "depth = 0\n"
        "def inner():\n"
        " global depth\n"
        " depth += 1\n"
        " return 0 if depth % 900 == 0 else T(inner)()\n"
        "def pattern(): T(inner)(); raise RecursionError"
    ),
    "sqlite": (
        "import sqlite3\ncon = sqlite3.connect(':memory:')\n"
        "con.create_function('f', 0, lambda: con.execute('select f()').fetchone()[0])\n"
        "def pattern():\n"
        " try: con.execute('select f()')\n"
        " except sqlite3.Error: raise RecursionError"
    ),
}


def run(source, **env):
    return scripts.run(PRELUDE + textwrap.dedent(source) + RUN, timeout=60, **env)


@pytest.mark.parametrize("name", PATTERNS)
def test_deep_recursion_is_an_error(name):
    source, allowed = PATTERNS[name]
    done = run(source)
    assert done.code == 0, done.err[-2000:]
    first, second = done.out.split()
    assert first == second, "the stack is good for another"
    assert first in allowed


@pytest.mark.parametrize("name", HUNGRY)
def test_hungry_recursion_is_an_error(name):
    done = run(HUNGRY[name])
    assert done.code == 0, done.err[-2000:]
    assert done.out.split() == ["RecursionError"] * 2


@pytest.mark.skipif(sys.version_info < (3, 12), reason="C recursion is not counted there")
@pytest.mark.parametrize("limit", [1000, 1_000_000])
def test_c_recursion_ends_before_a_small_stack_does(limit):
    source = f"sys.setrecursionlimit({limit})\n" + HUNGRY["sorted"]
    done = run(source, GEVENT_STACK_SIZE="1M")
    assert done.code == 0, done.err[-2000:]
    assert done.out.split() == ["RecursionError"] * 2


def test_an_overflow_says_what_to_do():
    done = run("def pattern(): sorted([1], key=lambda x: pattern())", GEVENT_STACK_SIZE="128K")
    if done.code == 0:
        # 3.14 and later know where the stack ends.
        assert done.out.split() == ["RecursionError"] * 2
    else:
        assert "GEVENT_STACK_SIZE" in done.err
