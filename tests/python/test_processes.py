"""Children and signals: Popen, run, fork, waitpid, SIGCHLD, and cooperative descriptors."""

import errno
import os
import signal as std_signal
import subprocess as std_subprocess
import sys
import textwrap

import pytest
from scripts import lines_of

import gevent
from gevent import os as gos
from gevent import signal, subprocess
from gevent.subprocess import PIPE, STDOUT, Popen, TimeoutExpired

PYTHON = sys.executable


def ticking():
    """``(greenlet, ticks)``: whether others run, and how much."""
    ticks = []

    def tick():
        while True:
            ticks.append(1)
            gevent.sleep(0.002)

    return gevent.spawn(tick), ticks


def test_others_run_while_a_child_does():
    ticker, ticks = ticking()
    with Popen(["cat"], stdin=PIPE) as child:
        assert child.poll() is None

        def end():
            while len(ticks) < 5:
                gevent.sleep(0.002)
            child.stdin.close()

        gevent.spawn(end)
        assert child.wait(timeout=30) == 0
    ticker.kill()
    assert child.returncode == child.poll() == 0


@pytest.mark.parametrize(
    "command, code",
    [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", -15), ("kill -KILL $$", -9)],
)
def test_exit_codes(command, code):
    assert subprocess.call(command, shell=True) == code
    if code:
        with pytest.raises(subprocess.CalledProcessError) as info:
            subprocess.check_call(["/bin/sh", "-c", command])
        assert info.value.returncode == code
    else:
        assert subprocess.check_call(command, shell=True) == 0


def test_communicate():
    with Popen(["cat"], stdin=PIPE, stdout=PIPE) as child:
        data = os.urandom(1 << 20)
        assert child.communicate(data) == (data, None)
    with Popen("echo out; echo err >&2", shell=True, stdout=PIPE, stderr=PIPE) as child:
        assert child.communicate() == (b"out\n", b"err\n")
    with Popen("echo out; echo err >&2", shell=True, stdout=PIPE, stderr=STDOUT) as child:
        assert sorted(child.communicate()[0].split()) == [b"err", b"out"]
    # A child that does not read what it is offered.
    with Popen(["true"], stdin=PIPE) as child:
        assert child.communicate(b"x" * (1 << 20)) == (None, None)


def test_text():
    with Popen(["cat"], stdin=PIPE, stdout=PIPE, text=True, encoding="utf-8") as child:
        assert child.communicate("grün\r\nblau\n") == ("grün\nblau\n", None)
    with Popen(["cat"], stdin=PIPE, stdout=PIPE, universal_newlines=True, bufsize=1) as child:
        child.stdin.write("line\n")
        assert child.stdout.readline() == "line\n"
        child.stdin.close()
    assert subprocess.check_output(["echo", "x"], text=True) == "x\n"


def test_reading_lines_lets_others_run():
    ticker, ticks = ticking()
    script = "for i in 1 2 3; do echo $i; read x; done"
    with Popen(script, shell=True, stdin=PIPE, stdout=PIPE) as child:

        def go_on():
            # Only while somebody else waits for the next line.
            for goal in (2, 4, 6):
                while len(ticks) < goal:
                    gevent.sleep(0.002)
                child.stdin.write(b"go\n")
                child.stdin.flush()

        other = gevent.spawn(go_on)
        assert list(child.stdout) == [b"1\n", b"2\n", b"3\n"]
        other.get(timeout=30)
    ticker.kill()


def test_timeouts():
    with Popen(["sleep", "60"]) as child:
        with pytest.raises(TimeoutExpired):
            child.wait(timeout=0.02)
        with pytest.raises(TimeoutExpired):
            child.communicate(timeout=0.02)
        child.terminate()
    assert child.returncode == -std_signal.SIGTERM
    with pytest.raises(TimeoutExpired):
        subprocess.call(["sleep", "60"], timeout=0.02)


def test_timeout_keeps_the_output():
    with Popen("echo early; read x; echo late", shell=True, stdin=PIPE, stdout=PIPE) as child:
        # The first call has to leave stdin open.
        reader = gevent.spawn(child.stdout.readline)
        assert reader.get(timeout=30) == b"early\n"
        child.stdin.write(b"go\n")
        assert child.communicate() == (b"late\n", None)
    read, write = os.pipe()
    late = f"read x </dev/fd/{read}; echo late"
    with Popen(late, shell=True, stdout=PIPE, pass_fds=[read]) as child:
        with pytest.raises(TimeoutExpired):
            child.communicate(timeout=0.01)
        os.write(write, b"go\n")
        assert child.communicate() == (b"late\n", None)
    os.close(read)
    os.close(write)


@pytest.mark.ours
def test_timeout_does_not_wait_for_grandchildren():
    # The grandchild has the output open, and does not end before we do something.
    read, write = os.pipe()
    script = f"echo early; cat </dev/fd/{read}; true"
    for timeout in (0.2, 1, 5, 20):
        with pytest.raises(TimeoutExpired) as info:
            subprocess.run(
                script, shell=True, timeout=timeout, capture_output=True, pass_fds=[read]
            )
        if info.value.stdout:
            break
    os.close(read)
    os.close(write)
    assert info.value.stdout == b"early\n"
    assert info.value.stderr == b""


def test_run():
    done = subprocess.run(["cat"], input=b"in", stdout=PIPE)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"in", None)
    done = subprocess.run("echo e >&2; exit 4", shell=True, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (4, b"", b"e\n")
    with pytest.raises(subprocess.CalledProcessError) as info:
        subprocess.run("echo o; exit 4", shell=True, capture_output=True, check=True)
    assert (info.value.returncode, info.value.stdout) == (4, b"o\n")
    for bad in ({"input": b"", "stdin": PIPE}, {"capture_output": True, "stdout": PIPE}):
        with pytest.raises(ValueError):
            subprocess.run(["true"], **bad)
    for bad in ({"stdout": PIPE}, {"check": True}, {"input": b"", "stdin": PIPE}):
        with pytest.raises(ValueError):
            subprocess.check_output(["true"], **bad)


def test_failure_to_start(tmp_path):
    for bad in (["/no/such/program"], "no-such-program-anywhere"):
        with pytest.raises(FileNotFoundError):
            Popen(bad, stdout=PIPE, stderr=PIPE)
    with pytest.raises(FileNotFoundError):
        Popen(["true"], cwd="/no/such/folder")
    with pytest.raises(PermissionError):
        Popen([tmp_path])
    with pytest.raises(ValueError, match="STDOUT can only be used for stderr"):
        Popen(["true"], stdout=STDOUT)
    with pytest.raises(TypeError):
        Popen(["true"], bufsize="x")


def test_descriptors_and_groups(tmp_path):
    r, w = os.pipe()
    script = f"import os; os.write({w}, b'%d' % os.getpgid(0))"
    with Popen([PYTHON, "-c", script], pass_fds=[w], process_group=0) as child:
        assert child.wait(timeout=10) == 0
    assert int(os.read(r, 100)) == child.pid
    # Not passed, so closed.
    assert subprocess.call([PYTHON, "-c", script], stderr=subprocess.DEVNULL) == 1
    with Popen(
        "pwd; echo $VARIABLE",
        shell=True,
        cwd=tmp_path,
        env={"VARIABLE": "v"},
        stdout=PIPE,
        start_new_session=True,
    ) as child:
        assert child.communicate()[0].split() == [str(tmp_path).encode(), b"v"]
    assert subprocess.call(["true"], preexec_fn=lambda: os._exit(7)) == 7
    os.close(r)
    os.close(w)


@pytest.mark.ours
def test_poll_knows_of_a_child_that_has_ended():
    for _ in range(20):
        child = Popen(["true"])
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert child.poll() == 0


@pytest.mark.ours
def test_poll_of_what_was_never_started():
    child = Popen.__new__(Popen)
    child.pid = child.returncode = None
    assert child.poll() is None


def test_child_gets_a_blocking_stdin():
    r, w = os.pipe()
    gos.make_nonblocking(r)
    with Popen(["cat"], stdin=r, stdout=PIPE) as child:
        gevent.sleep(0.05)
        assert child.poll() is None
        os.write(w, b"late")
        os.close(w)
        assert child.communicate() == (b"late", None)
    os.close(r)


def test_many_children():
    children = [gevent.spawn(subprocess.check_output, ["echo", str(n)]) for n in range(20)]
    assert [int(child.get(timeout=30)) for child in children] == list(range(20))


def test_waiting_for_children_and_others():
    child = Popen(["sleep", "0.02"])
    assert gevent.wait([child], timeout=10) == [child]
    assert child.returncode == 0


def test_kill_in_the_block():
    def run():
        with Popen(["sleep", "60"], stdout=PIPE) as child:
            started.append(child)
            try:
                child.communicate()
            finally:
                child.kill()

    started = []
    runner = gevent.spawn(run)
    gevent.sleep(0.02)
    with gevent.Timeout(10):
        runner.kill()
    assert started[0].returncode == -9
    assert started[0].stdout.closed


@pytest.mark.ours
def test_is_the_standard_class():
    assert issubclass(Popen, std_subprocess.Popen)
    with Popen(["true"]) as child:
        assert repr(child).startswith("<Popen at 0x")


@pytest.mark.ours  # upstream remembers a status for a minute that somebody has got already
def test_fork_and_waitpid():
    pid = gos.fork_and_watch()
    if not pid:
        gevent.sleep(0.01)
        os._exit(5)
    assert gos.waitpid(pid, os.WNOHANG) == (0, 0)
    ticker, ticks = ticking()
    got, status = gos.waitpid(pid, 0)
    ticker.kill()
    assert (got, os.WEXITSTATUS(status)) == (pid, 5)
    assert ticks
    with pytest.raises(ChildProcessError):
        gos.waitpid(pid, 0)


@pytest.mark.ours
def test_waitpid_any():
    # Children of other tests that nobody asked for.
    gos._reap_children(0)
    pids = set()
    for code in (1, 2):
        pid = gos.fork_and_watch()
        if not pid:
            os._exit(code)
        pids.add(pid)
    while pids:
        pid, status = gos.waitpid(-1, 0)
        assert os.WEXITSTATUS(status) in (1, 2)
        pids.discard(pid)
    with pytest.raises(ChildProcessError):
        gos.waitpid(-1, 0)


def test_a_child_is_told_once_to_who_waits_for_any():
    """Also if it is reaped before the loop looks."""
    pid = gos.fork_and_watch()
    if not pid:
        os._exit(3)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    got = [gos.waitpid(-1, os.WNOHANG)]
    for _ in range(5):
        gevent.sleep(0.01)
        try:
            got.append(gos.waitpid(-1, os.WNOHANG))
        except ChildProcessError:
            pass
    assert [(child, os.waitstatus_to_exitcode(status)) for child, status in got] == [(pid, 3)]


def test_callback_of_a_child():
    seen = []
    pid = gos.fork_and_watch(callback=lambda watcher: seen.append(watcher.pid))
    if not pid:
        os._exit(0)
    gos.waitpid(pid, 0)
    gevent.sleep(0.01)
    assert seen == [pid]


def test_sigchld_handler():
    seen = []

    def handler(signum, frame):
        gevent.sleep(0.001)  # it may block
        seen.append(signum)

    old = signal.signal(std_signal.SIGCHLD, handler)
    try:
        assert signal.getsignal(std_signal.SIGCHLD) is handler
        pid = gos.fork_and_watch()
        if not pid:
            os._exit(0)
        gos.waitpid(pid, 0)
        gevent.sleep(0.02)
        assert seen == [std_signal.SIGCHLD]
        with pytest.raises(TypeError):
            signal.signal(std_signal.SIGCHLD, "x")
    finally:
        signal.signal(std_signal.SIGCHLD, old if old is not None else std_signal.SIG_DFL)


def test_nonblocking_descriptors():
    r, w = os.pipe()
    assert gos.make_nonblocking(r)
    assert not gos.make_nonblocking(r)
    gos.make_nonblocking(w)
    reader = gevent.spawn(gos.nb_read, r, 100)
    gevent.sleep(0)
    assert gos.nb_write(w, b"x") == 1
    assert reader.get(timeout=30) == b"x"
    writer = gevent.spawn(lambda: [gos.nb_write(w, b"y" * 65536) for _ in range(3)])
    got = 0
    while not writer.ready() or got < sum(writer.value):
        got += len(gos.nb_read(r, 65536))
    os.close(w)
    assert gos.nb_read(r, 1) == b""
    os.close(r)


def test_pool_descriptors():
    r, w = os.pipe()
    reader = gevent.spawn(gos.tp_read, r, 100)
    gevent.sleep(0.01)
    assert gos.tp_write(w, b"x") == 1
    assert reader.get(timeout=30) == b"x"
    os.close(r)
    os.close(w)


def test_close():
    gevent.get_hub()  # which opens descriptors
    r, w = os.pipe()
    gos.close(w)
    gos.close(r)
    gevent.sleep(0.01)
    for fd in (r, w):
        with pytest.raises(OSError) as info:
            gos.close(fd)
        assert info.value.errno == errno.EBADF


@pytest.mark.ours
def test_close_after_the_end_of_its_module():
    """Objects close what they own when the interpreter has begun to empty modules."""
    code = """
        from gevent import monkey, get_hub
        monkey.patch_all()
        import gevent.os, os
        hub, fd = get_hub(), os.open(os.devnull, os.O_RDONLY)
        for module in (gevent.os.fcntl, gevent.os.errno):
            for name in [name for name in vars(module) if name[0] != "_"]:
                setattr(module, name, None)
        os.close(fd)
        fd = os.open(os.devnull, os.O_RDONLY)
        for name in list(vars(gevent.os)):
            if name[0] == "_" and name[1] != "_":
                setattr(gevent.os, name, None)
                os.close(fd)
                fd = os.open(os.devnull, os.O_RDONLY)
    """
    done = std_subprocess.run(
        [PYTHON, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_patched_children():
    code = """
        from gevent import monkey
        monkey.patch_all()
        import os, signal, subprocess, multiprocessing, time, sys
        seen = []
        signal.signal(signal.SIGCHLD, lambda *a: seen.append(1))
        print(subprocess.check_output(["echo", "hi"]))
        pid = os.fork()
        if not pid:
            time.sleep(0.01)
            os._exit(3)
        print(os.WEXITSTATUS(os.waitpid(pid, 0)[1]))
        pid = os.posix_spawn("/bin/true", ["true"], os.environ)
        print(os.waitpid(pid, 0)[1])
        print(os.system("exit 2") >> 8, os.popen("echo popen").read())
        time.sleep(0.01)
        print(bool(seen))
        if __name__ == "__main__":
            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0.01,))
            child.start(); child.join(30)
            print(child.exitcode)
    """
    done = std_subprocess.run(
        [PYTHON, "-W", "ignore", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.split() == ["b'hi\\n'", "3", "0", "2", "popen", "True", "0"], done.stderr


def test_signal_to_one_that_is_gone():
    with Popen(["true"]) as child:
        # Reaped by somebody else, so that nobody has told the object.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        std_subprocess.run(["true"], check=True)
        os.waitpid(child.pid, 0)
        assert child.returncode is None
        child.send_signal(std_signal.SIGTERM)
        child.kill()


@pytest.mark.ours
@pytest.mark.parametrize("where", ["gevent.get_hub().threadpool.apply", "in_thread", "call"])
@pytest.mark.parametrize("start", ["subprocess.Popen(['false']).wait()", "forked()"])
def test_a_first_child_while_sigchld_is_ignored(where, start):
    code = f"""
import signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
from gevent import monkey
monkey.patch_all()
import gevent, os, subprocess

def forked():
    child = os.fork()
    if not child:
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def start():
    return {start}

def in_thread(call):
    got = []
    ident = monkey.get_original("_thread", "start_new_thread")(lambda: got.append(call()), ())
    while not got:
        gevent.sleep(0.001)
    return got[0]

def call(what):
    return what()

print({where}(start), {where}(start), start())
"""
    assert lines_of(code) == ["1 1 1"]
