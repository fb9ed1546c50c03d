"""Two TLS ends under kills and timeouts at random: every byte arrives once, in its place."""

import importlib.util
import pathlib
import random

import pytest

PATH = pathlib.Path(__file__).parent.parent.parent / "tools" / "soak_tls.py"


@pytest.fixture
def work():
    spec = importlib.util.spec_from_file_location("soak_tls", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.ours
def test_two_hundred_megabytes(work):
    seed = random.randrange(1 << 32)
    kills, timeouts = work.exchange(100_000_000, seed)
    assert kills > 2 and timeouts > 2, (kills, timeouts, seed)
