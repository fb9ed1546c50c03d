"""System calls that fail, each call of each kind in turn and by rate, under the work of work.py.

    calls.py [--loop NAME] [--quick] [--only TEXT] [--seed N] [--sweep N] [--rates N]

A preload library (shim.c, built here) makes the call fail. What the kernel may say at any time
(EINTR, a short count, EAGAIN, a wait that ends early) nobody may notice. A real failure (no
descriptor, no memory, a reset) may end the round with an error that says so. Wrong data, a hang, a
crash, another kind of error or a descriptor that stays open is a failure; and so is an undisturbed
round afterwards, in the same process, that does not go well.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import io
import os
import random
import subprocess
import sys
import tempfile

import common
import runs

ONE_BYTE, NO_EVENTS = -1, -2
NAMES = {ONE_BYTE: "one byte", NO_EVENTS: "no events"}

#: What nobody may notice.
UNNOTICED = {
    "recv": [errno.EINTR, errno.EAGAIN, ONE_BYTE],
    "send": [errno.EINTR, errno.EAGAIN, ONE_BYTE],
    "read": [errno.EINTR, errno.EAGAIN, ONE_BYTE],
    "write": [errno.EINTR, errno.EAGAIN, ONE_BYTE],
    "sendfile": [errno.EINTR, errno.EAGAIN, ONE_BYTE],
    "accept": [errno.EINTR, errno.EAGAIN],
    "epoll_wait": [errno.EINTR, NO_EVENTS],
    "poll": [errno.EINTR],
    "ring_enter": [errno.EINTR, errno.EAGAIN, errno.EBUSY],
    "wait": [errno.EINTR],
    "open": [errno.EINTR],
}
#: What may show as an error of that kind.
SHOWN = {
    "recv": [errno.ECONNRESET, errno.ENOMEM],
    "send": [errno.ECONNRESET, errno.EPIPE, errno.ENOBUFS, errno.ENOMEM],
    "read": [errno.EIO],
    "write": [errno.ENOSPC],
    "sendfile": [errno.EIO],
    "accept": [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED],
    "connect": [errno.ECONNREFUSED, errno.EADDRNOTAVAIL, errno.ENOBUFS],
    "socket": [errno.EMFILE, errno.ENOBUFS],
    "pipe": [errno.EMFILE],
    "eventfd": [errno.EMFILE, errno.ENOMEM],
    "epoll_create": [errno.EMFILE, errno.ENOMEM],
    "epoll_ctl": [errno.ENOMEM, errno.ENOSPC],
    "ring_setup": [errno.EMFILE, errno.ENOMEM],
    "ring_register": [errno.ENOMEM],
    "timerfd": [errno.EMFILE],
    "signalfd": [errno.EMFILE],
    "inotify": [errno.EMFILE],
    "open": [errno.EMFILE, errno.ENOMEM],
    "dup": [errno.EMFILE],
    "setsockopt": [errno.ENOBUFS],
    "getsockopt": [errno.ENOBUFS],
    "bind": [errno.EADDRINUSE],
    "listen": [errno.EADDRINUSE],
    "getsockname": [errno.ENOBUFS],
    "shutdown": [errno.ENOTCONN],
    "close": [errno.EIO, errno.EINTR],
    "mmap": [errno.ENOMEM],
    "mprotect": [errno.ENOMEM],
    "madvise": [errno.ENOMEM, errno.EAGAIN],
    "pidfd": [errno.EMFILE],
    "fork": [errno.EAGAIN],
    "thread": [errno.EAGAIN],
    "sigaltstack": [errno.ENOMEM],
    "fsync": [errno.EIO],
}


def faults():
    for may_show, table in ((False, UNNOTICED), (True, SHOWN)):
        for call, kinds in table.items():
            for what in kinds:
                yield call, what, may_show


class Shim:
    """The preload library, which is in this process already."""

    def __init__(self):
        library = ctypes.CDLL(None)
        self._arm, self._disarm = library.faults_arm, library.faults_disarm
        self._arm.argtypes = [
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_long,
            ctypes.c_long,
            ctypes.c_uint,
            ctypes.c_uint64,
        ]
        self._disarm.restype = ctypes.c_long
        self.seen = ctypes.c_long()

    def one(self, call, what, number):
        """The call of that number, counted from now on, goes wrong."""
        assert self._arm(call.encode(), what, number, number + 1, 0, 0) == 0, call

    def some(self, call, what, rate, seed):
        """So many of 65,536 calls go wrong."""
        assert self._arm(call.encode(), what, 0, 0, rate, seed) == 0, call

    def off(self) -> int:
        """How often it went wrong; `seen` is how many calls there were."""
        return self._disarm(ctypes.byref(self.seen))


def descriptors() -> dict[str, str]:
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            pass  # The one that listed them.
    return found


class Program:
    """One program of work.py, and what is known of it undisturbed."""

    def __init__(self, name, shim):
        import gevent
        import work

        self.work, self.name, self.shim = work, name, shim
        self.said = io.StringIO()
        gevent.get_hub().exception_stream = self.said
        self.rounds = self.told = 0
        for _ in range(3):
            self.undisturbed()
        self.fds = {}
        self.fds = self.settled()

    def settled(self):
        """The descriptors that stay: what has ended is closed by the hub and by the collector."""
        import gevent

        for attempt in range(100):
            # Seconds pass where one stays: it goes on, and is no hang.
            common.report(at="settling")
            gevent.sleep(0.001 * attempt)
            gc.collect()
            left = descriptors()
            if len(left) <= len(self.fds) or (not self.fds and attempt == 10):
                break
        return left

    def undisturbed(self):
        error = self.work.run(self.name)
        if error is not None:
            raise self.work.Wrong(f"undisturbed, yet {error!r}") from error

    def calls(self, call) -> int:
        common.report(at="counting")
        self.shim.one(call, errno.EINTR, -1)
        try:
            self.work.run(self.name)
        finally:
            self.shim.off()
        return self.shim.seen.value

    def disturbed(self, may_show, how, arm, *args):
        common.report(at=how)
        arm(*args)
        try:
            error = self.work.run(self.name)
        finally:
            self.told += self.shim.off()
        self.rounds += 1
        if error is not None and not (may_show and self.work.explained(error)):
            raise self.work.Wrong(f"{how}: {error!r}") from error
        said = self.said.getvalue()
        self.said.seek(0)
        self.said.truncate()
        if "SystemError" in said or "Panic" in said:
            raise self.work.Wrong(f"{how}: the hub was told\n{said[-1500:]}")

    def fault(self, call, what, may_show, sweep, rates, random):
        self.sweep(call, what, may_show, sweep, rates, random)
        left = self.settled()
        if len(left) <= len(self.fds):
            return
        # Some are opened once, at the first need: those of a second time are too many.
        self.fds = left
        self.sweep(call, what, may_show, sweep, rates, random)
        left = self.settled()
        if len(left) > len(self.fds):
            new = [f"{fd} {to}" for fd, to in left.items() if fd not in self.fds]
            self.fds = left
            raise self.work.Wrong(f"descriptors are left: {', '.join(new)}")

    def sweep(self, call, what, may_show, sweep, rates, random):
        count = self.calls(call)
        # Not all of very many, but the first ones, and others from all over the round.
        numbers = range(1, count + 1)
        if count > sweep:
            numbers = [*range(1, sweep // 2 + 1)]
            numbers += sorted(random.sample(range(numbers[-1] + 1, count + 1), sweep // 2))
        for number in numbers:
            how = f"call {number} of {count}"
            self.disturbed(may_show, how, self.shim.one, call, what, number)
        for _ in range(rates):
            rate, seed = random.choice([1300, 6500, 20000]), random.getrandbits(32)
            how = f"{rate} of 65536 calls, seed {seed}"
            self.disturbed(may_show, how, self.shim.some, call, what, rate, seed)
        common.report(at="undisturbed")
        self.undisturbed()


def child(options) -> None:
    common.end_with_parent()
    from gevent import monkey

    monkey.patch_all()
    import work

    chance = random.Random(options.seed)
    program = Program(options.child, Shim())
    for number, (call, what, may_show) in enumerate(faults()):
        seed = chance.getrandbits(32)
        name = f"{call} {NAMES.get(what) or errno.errorcode[what]}"
        if number < options.first or options.only not in f"{options.child} {name}":
            continue
        if options.quick and (what in RARE or (options.child == "tls" and not may_show)):
            continue
        if not program.calls(call):
            continue
        common.report(begin=name, number=number)
        try:
            program.fault(call, what, may_show, options.sweep, options.rates, random.Random(seed))
        except work.Wrong as error:
            common.report(end=str(error))
        else:
            common.report(end=None)
    common.report(done=True)
    sys.stderr.write(f"{program.rounds} rounds, {program.told} faults\n")


def build(folder: str) -> str | None:
    """The preload library, or None where there is no compiler."""
    path = os.path.join(folder, "faults_shim.so")
    compiler = os.environ.get("CC") or "cc"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", path, str(common.HERE / "shim.c"), "-ldl"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    if done.returncode:
        raise SystemExit(f"shim.c does not build:\n{done.stderr}")
    return path


#: No ordinary kernel says so of a socket that is ready. An edge-triggered connection may wait for
#: good then, so the short form leaves it out. The same for EBUSY of io_uring_enter, by which a
#: server may hang if a third of all calls fail so: the kernel says it only where completions were
#: not taken.
RARE = [errno.EAGAIN, errno.EBUSY, ONE_BYTE]
#: Of the short form: those in which most of the code is.
QUICK = ["echo", "wsgi", "wsgi_handler", "processes", "tls"]


def main() -> int:
    options = common.arguments(__doc__.splitlines()[0], seed=1, sweep=12, rates=3)
    if options.child:
        child(options)
        return 0
    import work

    total = runs.Count()
    if options.quick:
        options.sweep, options.rates = 2, 1
    with tempfile.TemporaryDirectory() as folder:
        library = build(folder)
        if library is None:
            total.skipped += 1
            total.notes.append("skipped: faults in system calls (no C compiler)")
            return total.end()
        env = {"GEVENT_LOOP": options.loop, "LD_PRELOAD": library}
        for name in QUICK if options.quick else work.ALL:
            command = common.python("calls.py", "--child", name, "--loop", options.loop)
            for word in ("seed", "sweep", "rates", "only"):
                command += [f"--{word}", getattr(options, word)]
            command += ["--quick"] * options.quick
            count = common.steps(command, env, f"calls [{options.loop}] {name}")
            print(f"calls [{options.loop}] {name}: {count}", flush=True)
            total += count
    return total.end()


if __name__ == "__main__":
    sys.exit(main())
