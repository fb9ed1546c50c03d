"""PyMySQL as it is, against MariaDB."""

import pytest

import gevent

pymysql = pytest.importorskip("pymysql")


def connect(port):
    return pymysql.connect(host="127.0.0.1", port=port, user="root", autocommit=True)


def test_pymysql(mariadb_port, full, others):
    def work(n):
        conn = connect(mariadb_port)
        try:
            with conn.cursor() as cursor:
                for turn in range(40 if full else 10):
                    cursor.execute("select %s * 100 + %s, repeat('x', 20000)", (n, turn))
                    number, text = cursor.fetchone()
                    assert (number, len(text)) == (n * 100 + turn, 20000)
        finally:
            conn.close()

    gevent.joinall([gevent.spawn(work, n) for n in range(100)], raise_error=True)
    assert len(others) > 5


def test_a_limit_ends_a_query(mariadb_port):
    conn = connect(mariadb_port)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.05), conn.cursor() as cursor:
        cursor.execute("select sleep(5)")
    # By now its answers no longer match its questions, which the driver knows.
    conn.close()
    conn = connect(mariadb_port)
    with conn.cursor() as cursor:
        cursor.execute("select 1")
        assert cursor.fetchone() == (1,)
    conn.close()
