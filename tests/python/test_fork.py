"""Forking, from greenlets, native threads and callbacks: what the child has, the parent keeps."""

import os

import pytest

from scripts import lines_of

# What every program begins with. A child ends in os._exit, with its findings in the pipe.
HEAD = """
from gevent import monkey
monkey.patch_all()
import gevent, os, socket, sys, threading, time
from gevent import get_hub

said, say = os.pipe()

def child(body):
    pid = os.fork()
    if not pid:
        try:
            os.write(say, (str(body()) + "\\n").encode())
        finally:
            os._exit(0)
    return pid

def wait(pid):
    assert os.waitpid(pid, 0) == (pid, 0)
    return os.read(said, 1000).decode().strip()

def works():
    # Sockets, sleeps, the thread pool, new greenlets and child processes.
    a, b = socket.socketpair()
    got = gevent.spawn(b.recv, 10)
    gevent.spawn_later(0.01, a.sendall, b"x")
    pool = get_hub().threadpool.apply(lambda: "pool")
    import subprocess
    return got.get(timeout=30).decode(), pool, subprocess.check_output(["echo", "-n", "e"]).decode()
"""

WORKS = "('x', 'pool', 'e')"


@pytest.mark.ours  # upstream watches no children in a native thread
def test_from_anywhere():
    assert lines_of(
        HEAD
        + """
from gevent.monkey import get_original
print(wait(child(works)))
print(wait(gevent.spawn(child, works).get(timeout=30)))
get_hub().threadpool.apply(time.time)
print(wait(child(works)))
print(wait(child(lambda: wait(child(works)))))
pids = []
native = get_original("_thread", "start_new_thread")
native(lambda: pids.append(child(works)), ())
while not pids: time.sleep(0.01)
print(wait(pids[0]))
get_hub().loop.run_callback(lambda: pids.append(child(lambda: gevent.spawn(works).started)))
while len(pids) < 2: time.sleep(0.01)
print(wait(pids[1]))
"""
    ) == [WORKS] * 5 + ["True"]


def test_the_parents_connections_are_its_own():
    assert lines_of(
        HEAD
        + """
a, b = socket.socketpair()
readers = []
def serve():
    while data := b.recv(100):
        b.sendall(data.upper())
server = gevent.spawn(serve)
a.sendall(b"before")
print(a.recv(100))
def body():
    # The child lets go of them.
    a.close(); b.close()
    time.sleep(0.02)
    return works()
pid = os.fork()
if not pid:
    server.kill()
    os.write(say, str(body()).encode())
    os._exit(0)
for _ in range(20):
    a.sendall(b"during")
    assert a.recv(100) == b"DURING"
    time.sleep(0.002)
print(wait(pid))
a.sendall(b"after")
print(a.recv(100))
"""
    ) == ["b'BEFORE'", WORKS, "b'AFTER'"]


def test_others_go_on_in_the_child_by_default():
    assert lines_of(
        HEAD
        + """
ran = []
gevent.spawn_later(0.01, ran.append, 1)
print(wait(child(lambda: (time.sleep(0.05), ran)[1])), ran)
"""
    ) == ["[1] [1]"]


@pytest.mark.ours
def test_only_the_forker_goes_on_if_so_asked():
    assert lines_of(
        HEAD
        + """
ran, locked = [], threading.Lock()
def finally_():
    try:
        time.sleep(60)
    finally:
        ran.append("finally")
a, b = socket.socketpair()
thread = threading.Thread(target=finally_, daemon=True)
waiting = [gevent.spawn_later(0.01, ran.append, 1), gevent.spawn(finally_),
           gevent.spawn(b.recv, 5), gevent.spawn(locked.acquire), gevent.spawn(thread.start)]
watcher = get_hub().loop.timer(0.01, 0.01)
watcher.start(ran.append, 2)
gevent.sleep(0)
waiting.append(gevent.spawn(ran.append, 3))
def body():
    import gc
    global waiting
    waiting = None
    gc.collect()
    a.send(b"x")
    time.sleep(0.05)
    return ran, works()
print(wait(child(body)))
# The parent has lost nothing.
time.sleep(0.05)
watcher.stop()
print(sorted(set(ran)), waiting[2].get())
""",
        GEVENT_FORK_KILL="1",
    ) == [f"([], {WORKS})", "[1, 2, 3] b'x'"]


@pytest.mark.ours
def test_what_is_over_can_be_waited_for_in_the_child():
    """Also if the parent's hub is about to tell others, or telling them, that it is over."""
    assert lines_of(
        HEAD
        + """
told, done = [], gevent.spawn(int)
gevent.sleep(0)
def body():
    with gevent.Timeout(20):
        return gevent.wait([done]) == [done], told
done.rawlink(lambda _: told.append("link"))
print(wait(child(body)))
def fork_when_told():
    gevent.wait([done])
    return child(body)
forking = gevent.spawn(fork_when_told)
gevent.sleep(0)
done.rawlink(lambda _: told.append("link"))
print(wait(forking.get()), told)
""",
        GEVENT_FORK_KILL="1",
    ) == ["(True, [])", "(True, ['link']) ['link', 'link']"]


@pytest.mark.ours
def test_limits_of_the_forker_hold():
    assert lines_of(
        HEAD
        + """
def body():
    try:
        time.sleep(60)
    except gevent.Timeout as t:
        return t is mine, other
other = gevent.Timeout.start_new(0.01) if False else None
def limited():
    try:
        with gevent.Timeout(0.02):
            time.sleep(60)
    except gevent.Timeout:
        pass
others = [gevent.spawn(limited) for _ in range(3)]
gevent.sleep(0)
mine = gevent.Timeout.start_new(0.1)
try:
    pid = child(body)
finally:
    mine.close()
print(wait(pid))
gevent.joinall(others)
""",
        GEVENT_FORK_KILL="1",
    ) == ["(True, None)"]


@pytest.mark.ours
def test_a_lone_greenlet_ends_its_process():
    """As the process of a thread that forked would: the main greenlet is the parent's."""
    assert lines_of(
        HEAD
        + """
def forks():
    pid = os.fork()
    if not pid:
        print("child", flush=True)
        return None
    return os.waitpid(pid, 0)[1]
try:
    print("status", gevent.spawn(forks).get())
finally:
    print("main ends")
""",
        GEVENT_FORK_KILL="1",
    ) == ["child", "status 0", "main ends"]


def test_status_of_a_child_by_other_means():
    """`os.waitpid` waits cooperatively for a process that nobody here has started."""
    assert lines_of(
        HEAD
        + """
import _posixsubprocess, multiprocessing.util as util
ticks = []
read, write = os.pipe()
def start(code):
    # It ends when it is told.
    script = b"read x </dev/fd/%d; exit %d" % (read, code)
    return util.spawnv_passfds(b"/bin/sh", [b"sh", b"-c", script], [read])
def tick():
    while len(ticks) < 5:
        ticks.append(1)
        time.sleep(0.002)
    os.write(write, b"go\\n")
pid = start(3)
print(os.waitpid(pid, os.WNOHANG))
gevent.spawn(tick)
got, status = os.waitpid(pid, 0)
print(got == pid, os.WEXITSTATUS(status))
try:
    os.waitpid(pid, 0)
except ChildProcessError:
    print("gone")
pid = start(4)
with gevent.Timeout(0.01, False):
    os.waitpid(pid, 0)
os.write(write, b"go\\n")
print(os.WEXITSTATUS(os.waitpid(pid, 0)[1]))
"""
    ) == ["(0, 0)", "True 3", "gone", "4"]


@pytest.mark.ours  # as above
def test_children_of_native_threads():
    assert lines_of(
        HEAD
        + """
import subprocess
from gevent.monkey import get_original
done = []
def run():
    done.append(subprocess.check_output("sleep 0.05; echo out", shell=True))
    with subprocess.Popen("exit 4", shell=True) as process:
        done.append(process.wait())
    pid = os.fork()
    if not pid: os._exit(5)
    done.append(os.WEXITSTATUS(os.waitpid(pid, 0)[1]))
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 6"], os.environ)
    done.append(pid)
native = get_original("_thread", "start_new_thread")
native(run, ())
while len(done) < 4: time.sleep(0.005)
print(done[:3])
# Its thread, and so the loop that watches it, is gone.
time.sleep(0.02)
print(os.WEXITSTATUS(os.waitpid(done[3], 0)[1]))
print(get_hub().threadpool.apply(subprocess.check_output, (["echo", "pool"],)))
"""
    ) == ["[b'out\\n', 4, 5]", "6", "b'pool\\n'"]


def test_a_tls_session_outlives_a_child_that_ends_as_usual():
    """The child has copies of both ends, and lets the collector close them."""
    data = os.path.join(os.path.dirname(__file__), "data", "localhost")
    lines = lines_of(HEAD + f"""
import ssl
ours, theirs = socket.socketpair()
server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server_side.load_cert_chain({data + ".crt"!r}, {data + ".key"!r})
client_side = ssl.create_default_context(cafile={data + ".crt"!r})
def serve():
    with server_side.wrap_socket(theirs, server_side=True) as sock:
        try:
            while data := sock.recv(1000):
                sock.sendall(data[::-1])
        except BrokenPipeError:
            # OpenSSL 3.6 fails to send its alert when a session ends without a notice.
            pass
server = gevent.spawn(serve)
client = client_side.wrap_socket(ours, server_hostname="localhost")
client.sendall(b"before")
print(client.recv(100))
pids = []
def fork():
    pid = os.fork()
    if not pid:
        server.kill()
        client.close()
        sys.exit(0)
    pids.append(pid)
for n in range(5):
    fork()
    client.sendall(b"during")
    assert client.recv(100) == b"gnirud"
print([os.waitpid(pid, 0)[1] for pid in pids])
client.sendall(b"after")
print(client.recv(100))
client.close()
server.join()
""")
    assert lines == ["b'erofeb'", "[0, 0, 0, 0, 0]", "b'retfa'"]


def test_the_child_has_one_main_thread():
    assert lines_of("""
        from gevent import monkey; monkey.patch_all()
        import os, threading, time

        def fork():
            pid = os.fork()
            if not pid:
                main = threading.main_thread()
                alone = threading.enumerate() == [main] == [threading.current_thread()]
                os._exit(0 if alone else 1)
            print(os.waitpid(pid, 0)[1])

        fork()
        other = threading.Thread(target=time.sleep, args=(0.2,))
        other.start()
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
        other.join()
        """) == ["0", "0"]
