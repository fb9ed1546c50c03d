"""The sans-IO parser of HTTP as Python sees it; the table of bad requests is Rust's."""

import pytest

pytestmark = pytest.mark.ours


def core():
    import gevent._core

    return gevent._core


HEAD = (
    b"POST /a%20b?c=d HTTP/1.1\r\nHost: x:80\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n"
    b"Cookie: a=1\r\nX-Y: 1\r\nCookie: b=2\r\nx-y: 2\r\nX_Z: no\r\nExpect: 100-continue\r\n\r\n"
)


def test_a_head():
    head = core().parse_head(HEAD)
    assert (head.method, head.target, head.version) == ("POST", "/a%20b?c=d", (1, 1))
    assert (head.path, head.query, head.authority) == ("/a%20b", "c=d", None)
    assert head.headers[0] == ("Host", "x:80")
    assert (head.keep_alive, head.content_length, head.chunked) == (True, 3, False)
    assert head.expect_continue and not head.upgrade
    assert dict(head.environ_items()) == {
        "HTTP_HOST": "x:80",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "3",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_X_Y": "1,2",
        "HTTP_EXPECT": "100-continue",
    }


def test_an_absolute_target_overrides_the_host():
    head = core().parse_head(b"GET http://b/p?q HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (head.path, head.query, head.authority) == ("/p", "q", "b")
    assert dict(head.environ_items()) == {"HTTP_HOST": "b"}


@pytest.mark.parametrize(
    "data, status",
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", 400),
    ],
)
def test_bad_heads(data, status):
    with pytest.raises(core().HTTPError) as caught:
        core().parse_head(data)
    assert caught.value.status == status
    assert caught.value.reason == str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_upstreams_leniency():
    data = b"GET / HTTP/1.1\r\nA: b\r\n c\r\n"
    data += b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with pytest.raises(core().HTTPError):
        core().parse_head(data)
    head = core().parse_head(data, http="upstream")
    assert dict(head.environ_items()) == {"HTTP_A": "b   c", "HTTP_TRANSFER_ENCODING": "chunked"}
    assert head.chunked and head.content_length is None


def test_bodies():
    decoder = core().BodyDecoder(chunked=True)
    assert decoder.feed(b"2;x\r\noh\r\n4") == (b"oh", 10)
    assert not decoder.done
    assert decoder.feed(b"\r\n hai\r\n0\r\nA: b\r\n\r\nGET") == (b" hai", 19)
    assert decoder.done and decoder.trailers == [("A", "b")]
    decoder = core().BodyDecoder(3)
    assert decoder.feed(b"ab") == (b"ab", 2) and decoder.left == 1
    assert decoder.feed(b"cd") == (b"c", 1) and decoder.done
    assert core().BodyDecoder().done


def test_bad_bodies_stay_bad():
    decoder = core().BodyDecoder(chunked=True)
    for _ in range(2):
        with pytest.raises(core().HTTPError) as caught:
            decoder.feed(b"x\r\n")
        assert caught.value.status == 400
    with pytest.raises(core().HTTPError) as caught:
        core().BodyDecoder(10, max_body=9)
    assert caught.value.status == 413
