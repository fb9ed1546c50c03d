"""psycopg2 with a wait callback, psycopg 3, and SQLAlchemy on them, against PostgreSQL."""

import pytest

import gevent
from gevent import queue, socket


def all_of(greenlets):
    gevent.joinall(greenlets, raise_error=True)
    return [greenlet.value for greenlet in greenlets]


@pytest.fixture(scope="module")
def psycopg2():
    psycopg2 = pytest.importorskip("psycopg2")
    from psycopg2 import extensions

    def wait(conn):
        """What psycogreen does, and every program that has a copy of it."""
        while True:
            state = conn.poll()
            if state == extensions.POLL_OK:
                return
            if state == extensions.POLL_READ:
                socket.wait_read(conn.fileno())
            elif state == extensions.POLL_WRITE:
                socket.wait_write(conn.fileno())
            else:
                raise psycopg2.OperationalError(f"unexpected state {state}")

    extensions.set_wait_callback(wait)
    yield psycopg2
    extensions.set_wait_callback(None)


class Pool:
    """Connections of psycopg2, as programs pool them: one that failed is not put back."""

    def __init__(self, connect, size):
        self.connect = connect
        self.free = queue.Queue()
        for _ in range(size):
            self.free.put(None)

    def run(self, *query):
        conn = self.free.get()
        try:
            if conn is None:
                conn = self.connect()
                conn.autocommit = True
            with conn.cursor() as cursor:
                cursor.execute(*query)
                return cursor.fetchone()[0]
        except BaseException:
            if conn is not None:
                conn.close()
            conn = None
            raise
        finally:
            self.free.put(conn)

    def close(self):
        while not self.free.empty():
            conn = self.free.get()
            if conn is not None:
                conn.close()


def test_psycopg2(psycopg2, postgres_dsn, full, others):
    pool = Pool(lambda: psycopg2.connect(postgres_dsn), 30)

    def work(n):
        for turn in range(50 if full else 10):
            assert pool.run("select %s::int * 1000 + %s", (n, turn)) == n * 1000 + turn

    all_of([gevent.spawn(work, n) for n in range(100)])
    assert len(others) > 5

    # Cancelled by a limit, or killed: the rest of the pool is sound.
    def slow(n):
        with gevent.Timeout(0.02, False):
            pool.run("select %s::int from pg_sleep(5)", (n,))
            return "not cancelled"

    killed = [gevent.spawn(pool.run, "select 1 from pg_sleep(5)") for _ in range(10)]
    slow_ones = [gevent.spawn(slow, n) for n in range(10)]
    gevent.sleep(0.05)
    gevent.killall(killed)
    assert set(all_of(slow_ones)) == {None}
    got = all_of([gevent.spawn(pool.run, "select %s::int", (n,)) for n in range(100)])
    assert got == list(range(100))
    pool.close()


def test_psycopg2_notify(psycopg2, postgres_dsn):
    listener, speaker = psycopg2.connect(postgres_dsn), psycopg2.connect(postgres_dsn)
    listener.autocommit = speaker.autocommit = True
    with listener.cursor() as cursor:
        cursor.execute("listen news")

    def listen():
        while not listener.notifies:
            socket.wait_read(listener.fileno(), timeout=30)
            listener.poll()
        return listener.notifies.pop().payload

    heard = gevent.spawn(listen)
    gevent.sleep(0.01)
    with speaker.cursor() as cursor:
        cursor.execute("notify news, 'hello'")
    assert heard.get() == "hello"
    with pytest.raises(psycopg2.errors.UndefinedTable), speaker.cursor() as cursor:
        cursor.execute("select * from no_such_table")
    listener.close()
    speaker.close()


def test_psycopg3(postgres_dsn, full, others):
    pytest.importorskip("psycopg")
    from psycopg_pool import ConnectionPool

    with ConnectionPool(postgres_dsn, min_size=4, max_size=30, timeout=60) as pool:

        def run(*query):
            with pool.connection() as conn:
                return conn.execute(*query).fetchone()[0]

        def work(n):
            for turn in range(50 if full else 10):
                assert run("select %s::int * 1000 + %s", (n, turn)) == n * 1000 + turn

        all_of([gevent.spawn(work, n) for n in range(100)])
        assert len(others) > 5

        def slow():
            with gevent.Timeout(0.1, False):
                run("select 1 from pg_sleep(5)")
                return "not cancelled"

        killed = [gevent.spawn(run, "select 1 from pg_sleep(5)") for _ in range(10)]
        slow_ones = [gevent.spawn(slow) for _ in range(10)]
        gevent.sleep(0.1)
        gevent.killall(killed)
        assert set(all_of(slow_ones)) == {None}
        got = all_of([gevent.spawn(run, "select %s::int", (n,)) for n in range(100)])
        assert got == list(range(100))


def test_psycopg3_notify_and_copy(postgres_dsn):
    psycopg = pytest.importorskip("psycopg")
    with (
        psycopg.connect(postgres_dsn, autocommit=True) as listener,
        psycopg.connect(postgres_dsn, autocommit=True) as speaker,
    ):
        listener.execute("listen news")

        def listen():
            return [message.payload for message in listener.notifies(timeout=30, stop_after=3)]

        heard = gevent.spawn(listen)
        gevent.sleep(0.01)
        for n in range(3):
            speaker.execute(f"notify news, '{n}'")
        assert heard.get() == ["0", "1", "2"]

        speaker.execute("create temporary table numbers (n int)")
        with speaker.cursor().copy("copy numbers from stdin") as copy:
            for n in range(20000):
                copy.write_row([n])
        assert speaker.execute("select sum(n) from numbers").fetchone() == (199990000,)


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_sqlalchemy(request, driver, postgres_url):
    sqlalchemy = pytest.importorskip("sqlalchemy")
    if driver == "psycopg2":
        request.getfixturevalue("psycopg2")
    engine = sqlalchemy.create_engine(
        f"postgresql+{driver}://{postgres_url}", pool_size=20, max_overflow=10, pool_timeout=60
    )
    add = sqlalchemy.text("select cast(:a as int) + 1")

    def work(n):
        for turn in range(5):
            with engine.begin() as conn:
                assert conn.execute(add, {"a": n * 10 + turn}).scalar_one() == n * 10 + turn + 1

    all_of([gevent.spawn(work, n) for n in range(100)])

    def slow():
        with gevent.Timeout(0.05, False), engine.begin() as conn:
            conn.execute(sqlalchemy.text("select pg_sleep(5)"))
            return "not cancelled"

    assert set(all_of([gevent.spawn(slow) for _ in range(20)])) == {None}
    all_of([gevent.spawn(work, n) for n in range(100)])
    engine.dispose()


def test_sqlalchemy_asyncio(postgres_url):
    """Its bridge between async and plain code switches greenlets, which are ours."""
    sqlalchemy = pytest.importorskip("sqlalchemy")
    import asyncio

    from sqlalchemy.ext.asyncio import create_async_engine

    async def work(engine, n):
        async with engine.begin() as conn:
            await conn.execute(sqlalchemy.text("select pg_sleep(0.01)"))
            answer = await conn.execute(sqlalchemy.text("select cast(:a as int)"), {"a": n})
            return answer.scalar_one()

    async def main():
        engine = create_async_engine(f"postgresql+psycopg://{postgres_url}", pool_size=10)
        got = await asyncio.gather(*(work(engine, n) for n in range(30)))
        await engine.dispose()
        return got

    import greenlet

    assert greenlet.greenlet.__module__ == "greenlet"
    assert greenlet.__file__.startswith(gevent.__file__.rpartition("/")[0])
    assert asyncio.run(main()) == list(range(30))
