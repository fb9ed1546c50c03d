"""redis-py as it is: a hundred greenlets, pipelines, pub/sub, blocking pops, lost connections."""

import itertools
import os

import pytest

import gevent

redis = pytest.importorskip("redis")


@pytest.fixture
def prefix():
    return f"{os.getpid()}:"


@pytest.fixture
def client(redis_url):
    pool = redis.BlockingConnectionPool.from_url(redis_url, max_connections=60, timeout=30)
    client = redis.Redis(connection_pool=pool)
    yield client
    client.close()
    pool.disconnect()


def all_of(greenlets):
    gevent.joinall(greenlets, raise_error=True)
    return [greenlet.value for greenlet in greenlets]


def test_a_hundred_greenlets(client, prefix, full, others):
    turns = 200 if full else 40

    def work(n):
        key = f"{prefix}{n}"
        for turn in range(turns):
            client.set(key, f"{n}:{turn}")
            assert client.get(key) == b"%d:%d" % (n, turn)
            client.incr(prefix + "all")
        return client.delete(key)

    assert all_of([gevent.spawn(work, n) for n in range(100)]) == [1] * 100
    assert int(client.get(prefix + "all")) == 100 * turns
    assert len(others) > 5


def test_pipelines(client, prefix):
    def work(n):
        with client.pipeline() as pipe:
            for i in range(50):
                pipe.rpush(f"{prefix}list{n}", i)
            pipe.lrange(f"{prefix}list{n}", 0, -1)
            pipe.delete(f"{prefix}list{n}")
            return [int(x) for x in pipe.execute()[50]]

    assert all_of([gevent.spawn(work, n) for n in range(100)]) == [list(range(50))] * 100


def test_optimistic_locks(client, prefix):
    key = prefix + "counter"

    def add(pipe):
        now = int(pipe.get(key) or 0)
        gevent.sleep(0)
        pipe.multi()
        pipe.set(key, now + 1)

    all_of([gevent.spawn(client.transaction, add, key) for _ in range(20)])
    assert int(client.get(key)) == 20


def test_pubsub(client, prefix):
    channel = prefix + "channel"
    ready = itertools.count()

    def listen():
        with client.pubsub() as pubsub:
            pubsub.subscribe(channel)
            heard = []
            for message in pubsub.listen():
                if message["type"] == "subscribe":
                    next(ready)
                elif message["data"] == b"end":
                    return heard
                else:
                    heard.append(int(message["data"]))

    listeners = [gevent.spawn(listen) for _ in range(20)]
    while client.pubsub_numsub(channel)[0][1] < 20:
        gevent.sleep(0.005)
    for n in range(50):
        assert client.publish(channel, n) == 20
    client.publish(channel, "end")
    assert all_of(listeners) == [list(range(50))] * 20


def test_blocking_pops(client, prefix):
    queue = prefix + "queue"
    poppers = [gevent.spawn(client.blpop, queue, 30) for _ in range(40)]
    gevent.sleep(0.05)
    for n in range(40):
        client.rpush(queue, n)
    assert sorted(int(value) for _, value in all_of(poppers)) == list(range(40))
    assert client.blpop(queue, 0.05) is None


def test_killed_in_the_middle(client, prefix):
    """Whoever comes next must not read the answer that a killed greenlet had asked for."""

    def ask(n):
        while True:
            assert client.echo(f"{n}") == b"%d" % n

    for _ in range(5):
        asking = [gevent.spawn(ask, n) for n in range(60)]
        gevent.sleep(0.02)
        gevent.killall(asking)
    assert all_of([gevent.spawn(client.echo, f"{n}") for n in range(100)]) == [
        b"%d" % n for n in range(100)
    ]


def test_lost_connections(client, redis_url):
    """The server hangs up on everybody, again and again; the client retries by its own rules."""
    retried = redis.Redis.from_url(
        redis_url,
        retry_on_error=[redis.ConnectionError],
        retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.01), 20),
    )
    stop = []

    def work(n):
        count = 0
        while not stop:
            try:
                assert retried.echo(f"{n}") == b"%d" % n
                count += 1
            except redis.ConnectionError:
                # It was lost again while it was being replaced, which the client does not retry.
                pass
            gevent.sleep(0.001)
        return count

    workers = [gevent.spawn(work, n) for n in range(50)]
    for _ in range(5):
        gevent.sleep(0.05)
        retried.client_kill_filter(_type="normal", skipme=True)
    gevent.sleep(0.05)
    stop.append(1)
    assert min(all_of(workers)) > 0
    assert all_of([gevent.spawn(retried.echo, f"{n}") for n in range(100)]) == [
        b"%d" % n for n in range(100)
    ]
    retried.close()
