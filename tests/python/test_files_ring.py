"""Regular files and :mod:`gevent.os` on whatever loop; on io_uring they go by the loop itself.

What holds on every loop is tested on every loop: contents, positions, what is raised. What only a
loop that does files can do (others run meanwhile; a killed call takes nothing) asks for one.
"""

import gc
import os
import signal
import threading
import warnings

import gevent
import gevent.os
import gevent.pool
import pytest
from gevent.fileobject import FileObject, FileObjectBlock, FileObjectPosix, FileObjectThread
from gevent.hub import get_hub

KINDS = [FileObject, FileObjectPosix, FileObjectThread, FileObjectBlock]


def on_ring():
    return get_hub().loop.backend == "uring"


ring_only = pytest.mark.ours


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


def forget(path):
    """Have the kernel forget what it has of the file in memory, so that the disk must be asked."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 1 << 16, (1 << 20) + 3])
def test_contents(kind, tmp_path, size):
    data = os.urandom(size)
    path = tmp_path / "data"
    with kind(path, "wb") as file:
        assert file.write(data) == size
    assert path.read_bytes() == data
    for cold in (False, True):
        if cold:
            forget(path)
        with kind(path, "rb") as file:
            assert file.read() == data
            assert file.read() == b""
        for buffering in (0, -1):
            with kind(path, "rb", buffering) as file:
                assert file.read(10) == data[:10]
                assert file.tell() == min(10, size)
                assert file.read() == data[10:]
                file.seek(-3, os.SEEK_END) if size >= 3 else file.seek(0)
                assert file.read(100) == data[-3:]
                target = bytearray(8)
                file.seek(0)
                n = file.readinto(target)
                assert target[:n] == data[:n]
                assert n == min(8, size)


def test_text_append_update_and_truncate(kind, tmp_path):
    path = str(tmp_path / "text")
    with kind(path, "w", encoding="utf-8") as file:
        file.writelines("zeile %d ä\n" % n for n in range(1000))
    with kind(path, "a", encoding="utf-8") as file:
        file.write("ende")
    with kind(path, encoding="utf-8") as file:
        lines = list(file)
    assert lines[7] == "zeile 7 ä\n"
    assert lines[-1] == "ende"
    with kind(path, "r+b") as file:
        file.seek(6)
        file.write(b"NULL")
        file.seek(0)
        assert file.read(10) == b"zeile NULL"
        if kind in (FileObjectThread, FileObjectBlock):
            # Upstream's third kind has none.
            file.truncate(10)
            file.flush()
            assert os.path.getsize(path) == 10


def test_errors(kind, tmp_path):
    path = str(tmp_path / "none")
    with pytest.raises(FileNotFoundError) as caught:
        kind(path)
    assert caught.value.filename == path
    with pytest.raises(IsADirectoryError):
        kind(str(tmp_path))
    with kind(path, "xb") as file, pytest.raises(OSError):
        file.read()
    with pytest.raises(FileExistsError):
        kind(path, "xb")
    with kind(path, "rb") as file, pytest.raises(OSError):
        file.write(b"x")
    with pytest.raises(OSError):
        file.read()
    assert file.closed


def test_descriptors_are_closed_or_left(kind, tmp_path):
    path = str(tmp_path / "fd")
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with kind(fd, "wb", closefd=False) as file:
        file.write(b"text")
    assert os.lseek(fd, 0, os.SEEK_CUR) == 4
    os.lseek(fd, 0, os.SEEK_SET)
    with kind(fd, "rb") as file:
        assert file.name == fd
        assert file.read() == b"text"
    with pytest.raises(OSError):
        os.fstat(fd)


def test_a_file_object_of_somebody_else(tmp_path):
    path = str(tmp_path / "theirs")
    with open(path, "wb", 0) as theirs:
        file = FileObjectPosix(theirs, "wb")
        file.write(b"text")
        file.close()
        assert theirs.closed
    with open(path, "rb") as file:
        assert file.read() == b"text"


def test_many_greenlets_share_one_file(tmp_path):
    path = str(tmp_path / "log")
    with FileObject(path, "w") as log:

        def work(name):
            for n in range(50):
                log.write("%s %d\n" % (name, n))
                if n % 10 == 0:
                    log.flush()

        gevent.joinall([gevent.spawn(work, name) for name in "abcdefgh"], raise_error=True)
    lines = (tmp_path / "log").read_text().split("\n")[:-1]
    assert len(lines) == 400
    for name in "abcdefgh":
        assert [x for x in lines if x[0] == name] == ["%s %d" % (name, n) for n in range(50)]


def test_readers_of_one_file_get_each_line_once(tmp_path):
    path = tmp_path / "lines"
    path.write_text("".join("%d\n" % n for n in range(5000)))
    forget(path)
    seen = []
    with FileObject(path) as file:

        def work():
            while line := file.readline():
                seen.append(int(line))
                gevent.sleep(0)

        gevent.joinall([gevent.spawn(work) for _ in range(10)], raise_error=True)
    assert sorted(seen) == list(range(5000))


@ring_only
def test_the_loop_does_it(tmp_path):
    path = tmp_path / "data"
    before = get_hub().loop.statistics["operations"]
    threads = get_hub().threadpool.size
    for kind in (FileObjectPosix, FileObjectThread):
        with kind(path, "wb") as file:
            file.write(b"x" * 100000)
    after = get_hub().loop.statistics["operations"]
    assert (after - before >= 4) is on_ring()
    assert get_hub().threadpool.size == threads or not on_ring()


@ring_only
def test_a_fifo_opens_when_both_ends_are_there(tmp_path):
    if not on_ring():
        pytest.skip("on this loop opening blocks")
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    reader = gevent.spawn(lambda: FileObjectPosix(path, "rb", 0).read(4))
    gevent.sleep(0.01)
    assert not reader.ready()
    killed = gevent.spawn(FileObjectPosix, str(path), "rb")
    gevent.sleep(0.01)
    killed.kill()
    assert killed.ready()
    with FileObjectPosix(path, "wb", 0) as writer:
        writer.write(b"text")
        assert reader.get(timeout=30) == b"text"


@ring_only
def test_a_killed_read_takes_nothing_of_what_comes_later():
    if not on_ring():
        pytest.skip("in a thread pool it does")
    r, w = os.pipe()
    try:
        for end in (lambda g: g.kill(), lambda g: gevent.kill(g, ValueError("enough"))):
            reader = gevent.spawn(gevent.os.tp_read, r, 10)
            gevent.sleep(0.005)
            end(reader)
            gevent.sleep(0)
            assert reader.ready()
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
            gevent.os.tp_read(r, 10)
        assert gevent.os.tp_write(w, b"later") == 5
        assert gevent.os.tp_read(r, 10) == b"later"
    finally:
        os.close(r)
        os.close(w)


def test_kills_in_the_middle_of_file_operations(tmp_path):
    """Buffers outlive the greenlets that gave them; no memory is written that was given back."""
    path = tmp_path / "big"
    path.write_bytes(bytes(range(256)) * 4096 * 4)
    ended = []

    def work(n):
        with FileObject(path, "rb", 0) as file:
            buffer = bytearray(1 << 20)
            try:
                while file.readinto(buffer):
                    pass
            finally:
                ended.append(n)
        del buffer

    for round in range(20):
        forget(path)
        greenlets = [gevent.spawn(work, n) for n in range(8)]
        gevent.sleep(0)
        for greenlet in greenlets[::2]:
            greenlet.kill(block=False)
        gc.collect()
        gevent.joinall(greenlets, raise_error=True)
    assert len(ended) <= 160
    # Writes: what a killed one was to write is there whole or not at all.
    target = str(tmp_path / "log")
    with FileObject(target, "ab", 0) as log:

        def write(n):
            log.write(b"%03d" % n * 1000 + b"\n")

        greenlets = [gevent.spawn(write, n) for n in range(100)]
        gevent.sleep(0)
        gevent.killall(greenlets[::3], block=True)
        gevent.joinall(greenlets)
    for line in (tmp_path / "log").read_bytes().split(b"\n")[:-1]:
        assert line == line[:3] * 1000


def test_timeouts_in_the_middle(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"x" * (8 << 20))
    hits = 0
    for n in range(50):
        forget(path)
        try:
            with gevent.Timeout(0.0001 * n), FileObject(path, "rb") as file:
                assert len(file.read()) == 8 << 20
        except gevent.Timeout:
            hits += 1
    with FileObject(path, "rb") as file:
        assert len(file.read()) == 8 << 20
    assert hits <= 50


def test_garbage_is_flushed(tmp_path):
    path = tmp_path / "data"
    file = FileObjectPosix(str(path), "wb")
    file.write(b"kept")
    file.flush()
    file.write(b" too")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del file
        gc.collect()
    assert path.read_bytes() == b"kept too"


def test_in_the_hub_it_blocks(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"text")
    got = []
    file = FileObjectPosix(str(path), "rb")

    def callback():
        got.append(file.read())

    get_hub().loop.run_callback(callback)
    gevent.sleep(0.01)
    assert got == [b"text"]
    file.close()


def test_a_file_used_by_another_threads_hub(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"x" * 100000)
    file = FileObjectPosix(str(path), "rb")
    got = []

    def run():
        got.append(len(file.read()))
        get_hub().destroy(destroy_loop=True)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert got == [100000]
    file.close()


def test_a_signal_while_files_are_read(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"x" * (1 << 20))
    got = []
    old = signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
    try:
        for _ in range(20):
            forget(path)
            os.kill(os.getpid(), signal.SIGUSR1)
            with FileObject(path, "rb") as file:
                assert len(file.read()) == 1 << 20
            gevent.sleep(0)
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert len(got) == 20


def test_a_fork_in_the_middle(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"x" * (4 << 20))
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def read():
        with FileObject(path, "rb") as file:
            return len(file.read())

    for _ in range(5):
        forget(path)
        readers = [gevent.spawn(read) for _ in range(4)]
        writer = gevent.spawn(gevent.os.tp_write, log, b"once")
        gevent.sleep(0)
        pid = gevent.os.fork()
        if not pid:
            try:
                # The child's own: the loop works here as well.
                ok = read() == 4 << 20
            finally:
                os._exit(not ok)
        assert gevent.os.waitpid(pid, 0)[1] == 0
        assert [g.get(timeout=30) for g in readers] == [4 << 20] * 4
        assert writer.get(timeout=30) == 4
    os.close(log)
    assert (tmp_path / "log").read_bytes() == b"once" * 5


def test_tp_read_and_write(tmp_path):
    path = str(tmp_path / "data")
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        data = b"".join(b"%04d" % n for n in range(500))
        assert gevent.os.tp_write(fd, data) == len(data)
        os.lseek(fd, 0, os.SEEK_SET)
        parts = gevent.pool.Pool(20).map(lambda _: gevent.os.tp_read(fd, 4), range(500))
        assert sorted(parts) == [b"%04d" % n for n in range(500)]
        assert gevent.os.tp_read(fd, 4) == b""
        with pytest.raises(OSError):
            gevent.os.tp_read(10_000, 1)
    finally:
        os.close(fd)
