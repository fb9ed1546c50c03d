"""System calls that a filter refuses, one at a time, as a sandbox does: early, and in flight.

    refused.py [--loop NAME] [--quick] [--only TEXT]

A seccomp filter answers one system call with EPERM or ENOSYS. Each program of work.py has to do its
work all the same, or to end with an error of the system; a crash or a hang is a failure.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import socket
import struct
import sys

import common
import forked
import runs

#: name -> number on x86-64. What glibc and CPython cannot live without (futex, mmap, mprotect,
#: write, rt_sigreturn, exit_group) is not here: nobody's program survives that.
CALLS = {
    "poll": 7,
    "ioctl": 16,
    "readv": 19,
    "writev": 20,
    "pipe": 22,
    "sched_yield": 24,
    "madvise": 28,
    "dup": 32,
    "dup2": 33,
    "sendfile": 40,
    "socket": 41,
    "connect": 42,
    "accept": 43,
    "sendto": 44,
    "recvfrom": 45,
    "sendmsg": 46,
    "recvmsg": 47,
    "shutdown": 48,
    "bind": 49,
    "listen": 50,
    "getsockname": 51,
    "getpeername": 52,
    "socketpair": 53,
    "setsockopt": 54,
    "getsockopt": 55,
    "wait4": 61,
    "kill": 62,
    "fcntl": 72,
    "sigaltstack": 131,
    "epoll_wait": 232,
    "epoll_ctl": 233,
    "waitid": 247,
    "inotify_add_watch": 254,
    "signalfd": 282,
    "timerfd_create": 283,
    "timerfd_settime": 286,
    "accept4": 288,
    "signalfd4": 289,
    "eventfd2": 290,
    "epoll_create1": 291,
    "dup3": 292,
    "pipe2": 293,
    "inotify_init1": 294,
    "preadv": 295,
    "pwritev": 296,
    "prlimit64": 302,
    "sendmmsg": 307,
    "getrandom": 318,
    "preadv2": 327,
    "pwritev2": 328,
    "statx": 332,
    "io_uring_setup": 425,
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "process_madvise": 440,
    "epoll_pwait2": 441,
}
QUICK = ["echo", "wsgi", "processes"]
#: (call, errno, program) -> why nobody can do without. An empty string is any.
NEEDED = {
    ("epoll_ctl", "EPERM", ""): "says of a regular file that it is always ready",
    ("fcntl", "", "selects"): "whether a descriptor is open is asked with it",
    ("poll", "", "processes"): "the emulation of kevent looks with it",
}
#: What the loop itself waits with.
LOOPS_OWN = {CALLS["epoll_wait"], CALLS["epoll_pwait2"], CALLS["io_uring_enter"]}


def needed(call, code, name, loop):
    if call == "poll" and loop != "kqueue":
        return None
    keys = ((call, a, b) for a in (errno.errorcode[code], "") for b in (name, ""))
    return next((NEEDED[key] for key in keys if key in NEEDED), None)


def refuse(number: int, code: int) -> None:
    """From now on the kernel answers that call of this process with that errno."""
    load, equal, back = 0x20, 0x15, 0x06
    steps = [
        struct.pack("HBBI", load, 0, 0, 0),
        struct.pack("HBBI", equal, 0, 1, number),
        struct.pack("HBBI", back, 0, 0, 0x00050000 | code),
        struct.pack("HBBI", back, 0, 0, 0x7FFF0000),
    ]
    code_buffer = ctypes.create_string_buffer(b"".join(steps))
    program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code_buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, filtered = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(set_seccomp, filtered, program):
        raise OSError(ctypes.get_errno(), "prctl")


def body(work, name, number, code, in_flight):
    # A server that may not accept never answers: its client has to be told at some time.
    socket.setdefaulttimeout(5 * runs.SCALE)
    if in_flight:
        work.ALL[name]()
    refuse(number, code)
    error = work.run(name)
    if error is None:
        return forked.FINE
    # The hub has ended with the error, which a client took for a failed connection: there is no hub
    # for its next wait.
    no_hub = number in LOOPS_OWN and type(error).__name__ == "InvalidSwitchError"
    if no_hub or work.explained(error):
        return forked.EXPLAINED
    raise error


def child(options) -> None:
    from gevent import monkey

    monkey.patch_all()
    import work

    names = QUICK if options.quick else list(work.ALL)
    number = -1
    for call, at in CALLS.items():
        for code in [errno.EPERM] if options.quick else [errno.EPERM, errno.ENOSYS]:
            number += 1
            step = f"{call} {errno.errorcode[code]}"
            if number < options.first or options.only not in step:
                continue
            common.report(begin=step, number=number)
            wrong = []
            for name in names:
                if why := needed(call, code, name, options.loop):
                    common.report(skip=f"{step}: {name} ({why})")
                    continue
                for in_flight in (True,) if options.quick else (False, True):
                    how = f"{name}, {'in flight' if in_flight else 'from the start'}"
                    common.report(at=how)
                    run = (work, name, at, code, in_flight)
                    ended = forked.ended(lambda run=run: body(*run), 15)
                    said = forked.verdict(*ended)
                    if said:
                        wrong.append(f"{how}: {said}")
            common.report(end="; ".join(wrong[:4]) or None)
    common.report(done=True)


def main() -> int:
    options = common.arguments(__doc__.splitlines()[0])
    if options.child:
        child(options)
        return 0
    if sys.platform != "linux" or platform.machine() != "x86_64":
        note = "skipped: refused system calls (the numbers are those of Linux on x86-64)"
        return runs.Count(skipped=1, notes=[note]).end()
    command = common.python("refused.py", "--child", "all", "--loop", options.loop)
    command += ["--only", options.only] + ["--quick"] * options.quick
    return common.steps(command, {"GEVENT_LOOP": options.loop}, f"refused [{options.loop}]").end()


if __name__ == "__main__":
    sys.exit(main())
