"""The programs of work.py under limits: few descriptors, little address space, no threads.

    limits.py [--loop NAME] [--quick]

A round may fail with an error that says so, or wait until the limit is gone (a client whose server
has no descriptor to accept it with); it may not crash, hang, or change data. Without the limit,
a round has to go well in the process. An end by Rust's own allocator, with its sentence, is counted
as skipped: that is what it does when there is no memory.
"""

from __future__ import annotations

import os
import resource
import sys
import traceback

import common

#: What is left free of a limit, in turn.
DESCRIPTORS = [0, 1, 2, 3, 5, 8, 13]
#: Mebibytes of address space beyond what is mapped already.
MEMORY = [0, 1, 4, 16, 64]
#: Seconds after which a round that waits for the limit to go is ended.
WAIT = 3
#: Of which programs; those of the short form.
QUICK = ["echo", "wsgi", "greenlets"]


def mapped() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()


def limits():
    used = len(os.listdir("/proc/self/fd")) - 1
    for free in DESCRIPTORS:
        yield f"{free} descriptors", resource.RLIMIT_NOFILE, used + free
    for free in MEMORY:
        yield f"{free} MiB", resource.RLIMIT_AS, mapped() + (free << 20)


def child(options) -> None:
    common.end_with_parent()
    from gevent import monkey

    monkey.patch_all()
    import gevent
    import work

    gevent.get_hub().exception_stream = None
    for _ in range(3):
        error = work.run(options.child)
        if error is not None:
            raise error
    gevent.sleep(0.05)  # Connections that have ended are closed by the hub.
    for number, (name, kind, soft) in enumerate(limits()):
        if number < options.first:
            continue
        common.report(begin=name, number=number)
        before = resource.getrlimit(kind)
        resource.setrlimit(kind, (soft, before[1]))
        error = None
        try:
            with gevent.Timeout(WAIT, False):
                error = work.run(options.child)
        except work.Wrong as wrong:
            error = wrong
        finally:
            resource.setrlimit(kind, before)
        wrong = None
        if error is not None and not work.explained(error):
            wrong = f"{name}: " + "".join(traceback.format_exception(error))
        # What the limit kept from ending ends now.
        gevent.sleep(0.05)
        again = work.run(options.child)
        if again is not None:
            wrong = f"{name}: undisturbed again, yet {again!r}"
        common.report(end=wrong)
    common.report(done=True)


def main() -> int:
    options = common.arguments(__doc__.splitlines()[0])
    if options.child:
        child(options)
        return 0
    import runs
    import work

    total = runs.Count()
    for name in QUICK if options.quick else work.ALL:
        command = common.python("limits.py", "--child", name, "--loop", options.loop)
        title = f"limits [{options.loop}] {name}"
        count = common.steps(command, {"GEVENT_LOOP": options.loop}, title)
        print(f"{title}: {count}", flush=True)
        total += count
    return total.end()


if __name__ == "__main__":
    sys.exit(main())
