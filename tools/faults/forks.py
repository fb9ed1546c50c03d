"""Signals that come between a fork and what the child does first: to the parent, and to the child.

    forks.py [--loop NAME] [--quick] [--only TEXT]

A process forks again and again while another one sends it a signal all the time, and its children
as soon as they are there. Signals of which the parent's handler hears nothing, a child that ends
neither by itself nor by that signal, and a child whose hub does not work are failures.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import common
import runs

#: Sends SIGUSR1 to the process of that number and its children, until it is gone.
SENDER = textwrap.dedent(
    """
    import os, signal, sys, time
    pid, sent = int(sys.argv[1]), 0
    children = f"/proc/{pid}/task/{pid}/children"
    print("sending", flush=True)
    while os.getppid() == pid:
        try:
            with open(children) as file:
                pids = [int(word) for word in file.read().split()]
            for target in [pid, *pids]:
                if target != os.getpid():
                    os.kill(target, signal.SIGUSR1)
        except OSError:
            pass
        time.sleep(0.0005)
    """
)


def forked(gevent, work):
    """A child of os.fork in which a handler and the hub have to work."""
    pid = os.fork()
    if not pid:
        try:
            gevent.sleep(0.001)
            good = gevent.spawn(abs, -7).get() == 7
            os._exit(0 if good else 8)
        except BaseException:
            os._exit(9)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def started(gevent, work):
    return subprocess.call(["true"])


KINDS = {"os.fork": forked, "subprocess": started}


def child(options) -> None:
    from gevent import monkey

    monkey.patch_all()
    import gevent
    import work

    count = 30 if options.quick else 300
    handled = []
    told = []
    signal.signal(signal.SIGUSR1, lambda *_: handled.append(1))
    watcher = gevent.get_hub().loop.signal(signal.SIGUSR2)
    watcher.start(lambda: told.append(1))
    number = -1
    for name, once in KINDS.items():
        number += 1
        if number < options.first or options.only not in name:
            continue
        common.report(begin=name, number=number)
        sender = subprocess.Popen(
            [sys.executable, "-c", SENDER, str(os.getpid())], stdout=subprocess.PIPE
        )
        wrong = []
        try:
            sender.stdout.readline()
            for turn in range(count):
                common.report(at=f"{name} {turn}")
                os.kill(os.getpid(), signal.SIGUSR2)
                code = once(gevent, work)
                # A program that was just started has no handler: the signal may end it.
                if code not in (0, -signal.SIGUSR1 if once is started else 0):
                    wrong.append(f"a child ended with {code}")
        finally:
            sender.kill()
            sender.wait()
            sender.stdout.close()
        for _ in range(1000):
            if told:
                break
            gevent.sleep(0.01)
        if not handled or not told:
            wrong.append(f"handler called {len(handled)} times, watcher {len(told)} times")
        common.report(end="; ".join(wrong[:3]) or None)
        handled.clear()
        told.clear()
    common.report(done=True)


def main() -> int:
    options = common.arguments(__doc__.splitlines()[0])
    if options.child:
        child(options)
        return 0
    if not sys.platform.startswith("linux"):
        return runs.Count(skipped=1, notes=["skipped: forks (children are found in /proc)"]).end()
    command = common.python("forks.py", "--child", "all", "--loop", options.loop)
    command += ["--only", options.only] + ["--quick"] * options.quick
    return common.steps(command, {"GEVENT_LOOP": options.loop}, f"forks [{options.loop}]").end()


if __name__ == "__main__":
    sys.exit(main())
