"""What the programs run under: everything patched before anything else, a limit for each test.

The servers come from the runner (`make programs`), by variables; a test whose server is not there
is skipped. ``FULL`` chooses between the sizes of `make test` and those of `make programs`.
"""

from gevent import monkey

monkey.patch_all()

import faulthandler  # noqa: E402
import os  # noqa: E402

import pytest  # noqa: E402

import gevent  # noqa: E402

SCALE = float(os.environ.get("TIME_SCALE") or 1)
FULL = bool(os.environ.get("PROGRAMS_FULL"))


def pytest_configure():
    faulthandler.enable()


@pytest.fixture(autouse=True)
def limit():
    """Ends a test that hangs in a greenlet; the runner's limit ends whatever else hangs."""
    with gevent.Timeout((300 if FULL else 100) * SCALE):
        yield


def _variable(name, server):
    value = os.environ.get(name)
    if not value:
        pytest.skip(f"no {server} here")
    return value


@pytest.fixture
def redis_url():
    return _variable("PROGRAMS_REDIS", "redis-server")


@pytest.fixture
def postgres_dsn():
    return _variable("PROGRAMS_POSTGRES", "postgres")


@pytest.fixture
def postgres_url(postgres_dsn):
    parts = dict(part.split("=") for part in postgres_dsn.split())
    return "{user}@{host}:{port}/{dbname}".format(**parts)


@pytest.fixture
def mariadb_port():
    return int(_variable("PROGRAMS_MARIADB", "mariadbd"))


@pytest.fixture
def full():
    return FULL


@pytest.fixture
def others():
    """Counts the turns of a greenlet that does nothing else: proof that nothing blocks them all."""
    turns = []

    def turn():
        while True:
            turns.append(1)
            gevent.sleep(0.002)

    greenlet = gevent.spawn(turn)
    yield turns
    greenlet.kill()
