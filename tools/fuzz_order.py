"""Random small programs on this gevent and on upstream's: both must do the same things in order.

    fuzz_order.py [--seconds S] [--seed N] [--against PYTHON]
    fuzz_order.py --replay FILE

A program is plain data: for each of a few greenlets a list of operations on shared events, queues,
locks, results and greenlets. Nothing in it waits for a clock that could be read differently, so the
log of what began, ended or raised, and in which greenlet, is one and the same on a correct
implementation. Each side runs its programs in one child. A program whose logs differ is cut down
to the least that still differs, and printed as JSON that `--replay` takes. Ends with
`N passed, N failed`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time

BATCH = 100
# How long a program's greenlets get before whoever is still parked is killed.
PATIENCE = 0.15

# operation -> how many shared objects of its kind there are
KINDS = {
    "event": 2,
    "queue": 3,
    "semaphore": 2,
    "rlock": 1,
    "result": 2,
    "channel": 1,
    "pool": 1,
}
OPERATIONS = {
    "sleep": None,
    "idle": None,
    "event.set": "event",
    "event.clear": "event",
    "event.wait": "event",
    "event.wait0": "event",
    "queue.put": "queue",
    "queue.get": "queue",
    "queue.put_nowait": "queue",
    "queue.get_nowait": "queue",
    "queue.get0": "queue",
    "queue.peek": "queue",
    "semaphore.acquire": "semaphore",
    "semaphore.try": "semaphore",
    "semaphore.acquire0": "semaphore",
    "semaphore.release": "semaphore",
    "rlock.acquire": "rlock",
    "rlock.release": "rlock",
    "result.set": "result",
    "result.fail": "result",
    "result.get": "result",
    "result.get_nowait": "result",
    "channel.put": "channel",
    "channel.get": "channel",
    "pool.spawn": "pool",
    "pool.join": "pool",
    "pool.kill": "pool",
    "pool.map": "pool",
    "timeout": None,
    "timeout.quiet": None,
    "callback": None,
    "timer": None,
    "raw": None,
    "raise": None,
    "spawn": "greenlet",
    "join": "greenlet",
    "join0": "greenlet",
    "get": "greenlet",
    "kill": "greenlet",
    "kill.later": "greenlet",
    "link": "greenlet",
    "unlink": "greenlet",
    "rawlink.event": "event",
    "wait.one": "greenlet",
    "iwait": "greenlet",
    "ready": "greenlet",
}


def make(rng: random.Random) -> list[list[list]]:
    """A program: for each greenlet its operations, each a name and the index that it works on."""
    many = rng.randint(2, 6)
    names = rng.sample(list(OPERATIONS), rng.randint(4, 14)) + ["sleep"]
    program = []
    for _ in range(many):
        body = []
        for _ in range(rng.randint(1, 9)):
            name = rng.choice(names)
            kind = OPERATIONS[name]
            room = many if kind == "greenlet" else KINDS.get(kind, 1)
            body.append([name, rng.randrange(room)])
        program.append(body)
    return program


def perform(program: list[list[list]]) -> list[str]:
    """Runs a program on the gevent of this process; returns its log."""
    import greenlet

    import gevent
    from gevent import event, lock, pool, queue

    hub = gevent.get_hub()
    hub.exception_stream = None
    log: list[str] = []
    shared = {
        "event": [event.Event() for _ in range(KINDS["event"])],
        "queue": [queue.Queue(), queue.Queue(1), queue.Queue(2)],
        "semaphore": [lock.Semaphore(1), lock.BoundedSemaphore(2)],
        "rlock": [lock.RLock()],
        "result": [event.AsyncResult() for _ in range(KINDS["result"])],
        "channel": [queue.Channel()],
        "pool": [pool.Pool(2)],
    }
    all_greenlets: list = []
    names: dict = {}

    def name_of(value):
        if isinstance(value, greenlet.greenlet):
            return names.get(value, "?")
        if isinstance(value, (list, tuple, set)):
            return type(value)(name_of(item) for item in value)
        if isinstance(value, BaseException):
            return type(value).__name__
        return value

    def child(me, steps):
        for step in range(steps):
            log.append(f"{me} child {step}")
            gevent.sleep(0)
        return me

    def linked(source):
        log.append(f"linked {names.get(source, 'result')}")

    timers = []

    def operate(me, step, name, index):
        kind = OPERATIONS[name]
        one = (
            all_greenlets[index] if kind == "greenlet" else (shared[kind][index] if kind else None)
        )
        tag = f"{me}.{step}"
        if name == "sleep":
            return gevent.sleep(0)
        if name == "idle":
            return gevent.idle()
        if name == "event.wait0":
            return one.wait(timeout=0)
        if name == "queue.put":
            return one.put(tag)
        if name == "queue.put_nowait":
            return one.put_nowait(tag)
        if name == "queue.get0":
            return one.get(timeout=0)
        if name == "semaphore.try":
            return one.acquire(blocking=False)
        if name == "semaphore.acquire0":
            return one.acquire(timeout=0)
        if name == "result.set":
            return one.set(tag)
        if name == "result.fail":
            return one.set_exception(ValueError(tag))
        if name == "channel.put":
            return one.put(tag)
        if name == "pool.spawn":
            return one.spawn(child, tag, 2).ready()
        if name == "pool.map":
            return one.map(lambda n: child(f"{tag}m{n}", 1), range(3))
        if name == "pool.kill":
            return one.kill()
        if name == "timeout":
            with gevent.Timeout(0):
                return gevent.sleep(10)
        if name == "timeout.quiet":
            with gevent.Timeout(0, False):
                return gevent.sleep(10)
            return "quiet"
        if name == "callback":
            return hub.loop.run_callback(log.append, f"callback {tag}").pending
        if name == "timer":
            timers.append(hub.loop.timer(0))
            return timers[-1].start(log.append, f"timer {tag}")
        if name == "raw":
            return gevent.spawn_raw(child, tag, 1).dead
        if name == "raise":
            raise KeyError(tag)
        if name == "spawn":
            spawned = gevent.spawn(child, tag, 2)
            names[spawned] = f"child of {tag}"
            extra.append(spawned)
            return spawned.started
        if name == "join0":
            return one.join(timeout=0)
        if name == "kill":
            return one.kill() if one is not gevent.getcurrent() else None
        if name == "kill.later":
            return one.kill(block=False)
        if name == "link":
            return one.link(linked)
        if name == "unlink":
            return one.unlink(linked)
        if name == "rawlink.event":
            return one.rawlink(linked)
        if name == "wait.one":
            others = [g for g in all_greenlets if g is not gevent.getcurrent()]
            return len(gevent.wait(others, count=1))
        if name == "iwait":
            return [names[g] for g in gevent.iwait([one], count=1)]
        if name == "ready":
            return one.ready(), one.successful(), one.started, name_of(one.exception)
        return getattr(one, name.split(".")[-1])()

    extra: list = []

    def body(me, operations):
        for step, (name, index) in enumerate(operations):
            log.append(f"{me} {step} {name} {index}")
            try:
                got = operate(me, step, name, index)
            except Exception as error:
                log.append(f"{me} {step} raised {type(error).__name__}: {error_text(error)}")
            except gevent.Timeout as error:
                log.append(f"{me} {step} timeout {error.seconds}")
            except gevent.GreenletExit:
                log.append(f"{me} {step} killed")
                raise
            else:
                log.append(f"{me} {step} -> {name_of(got)!r}")
        return me

    def error_text(error):
        # Texts that hold addresses or the repr of an object of ours say nothing about order.
        return "" if "0x" in str(error) or "<" in str(error) else str(error)

    for number, operations in enumerate(program):
        one = gevent.Greenlet(body, number, operations)
        names[one] = f"g{number}"
        all_greenlets.append(one)
    for one in all_greenlets:
        one.start()
    # Not joinall: its own links would stand in the order that is looked at.
    deadline = time.monotonic() + PATIENCE
    quiet = 0
    while quiet < 3 and time.monotonic() < deadline:
        before = len(log)
        gevent.sleep(0.001)
        quiet = quiet + 1 if len(log) == before else 0
        if all(one.dead for one in all_greenlets):
            break
    log.append("end " + " ".join("dead" if one.dead else "parked" for one in all_greenlets))
    for one in [*all_greenlets, *extra, *shared["pool"][0].greenlets]:
        one.kill(timeout=1)
    for timer in timers:
        timer.close()
    log.append("after " + repr([(g.ready(), name_of(g.value)) for g in all_greenlets]))
    gevent.sleep(0)
    # libev's heap gives timers that are due at the same time in any order.
    runs = itertools.groupby(log, key=lambda line: line.startswith("timer "))
    return [line for due, run in runs for line in (sorted(run) if due else run)]


def serve() -> None:
    """The child: a program a line on stdin, its log a line on stdout."""
    for line in sys.stdin:
        try:
            log = perform(json.loads(line))
        except BaseException as error:
            log = [f"broke: {type(error).__name__}: {error}"]
        sys.stdout.write(json.dumps(log) + "\n")
        sys.stdout.flush()


def logs(python: str, programs: list, env: dict) -> list:
    """The logs of programs on one interpreter; a program that crashes or hangs has none."""
    got: list = []
    while len(got) < len(programs):
        rest = programs[len(got) :]
        with tempfile.TemporaryFile("w+") as source:
            source.write("".join(json.dumps(p) + "\n" for p in rest))
            source.seek(0)
            child = subprocess.Popen(
                [python, "-X", "faulthandler", os.path.abspath(__file__), "--serve"],
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **env},
            )
            try:
                out, err = child.communicate(timeout=20 + len(rest) * 4 * PATIENCE)
                end = f"exit code {child.returncode}"
            except subprocess.TimeoutExpired:
                child.kill()
                out, err = child.communicate()
                end = "time limit"
        whole = out.split("\n")[:-1]
        got += [json.loads(line) for line in whole]
        if len(whole) < len(rest):
            got.append([f"{end}: {err[-1500:]}"])
    return got


def differs(program, sides) -> tuple[list, list] | None:
    """The two logs, if each side gives its own one twice and they are not the same."""
    ours, theirs = (logs(python, [program, program], env) for python, env in sides)
    if ours[0] == theirs[0] or ours[0] != ours[-1] or theirs[0] != theirs[-1]:
        return None
    return ours[0], theirs[0]


def is_lost_wake(ours, theirs) -> bool:
    """Whether upstream has lost a waiter, where this gevent goes on.

    Its event that is set forgets who waits for its notice, when all that waited for it to be set
    have given up meanwhile.
    """
    row = 0
    while ours[row] == theirs[row]:
        row += 1
        if row == min(len(ours), len(theirs)):
            return False
    who = ours[row].removesuffix(" -> True")
    waits = [f"{who} event.wait{kind} {index}" for kind in ("", "0") for index in range(2)]
    return theirs[row].startswith("end ") and any(wait in ours[:row] for wait in waits)


def shrink(program, sides):
    """Drops operations and greenlets while the two sides still differ."""
    steps = 0
    again = True
    while again and steps < 150:
        again = False
        for number, body in enumerate(program):
            for step in range(len(body)):
                smaller = [list(b) for b in program]
                del smaller[number][step]
                steps += 1
                found = differs(smaller, sides)
                if found and not is_lost_wake(*found):
                    program, again = smaller, True
                    break
            if again:
                break
    return program


def report(program, sides) -> None:
    found = differs(program, sides)
    if found is None:
        print("does not differ any more when run alone (state left by an earlier program?)")
        return
    ours, theirs = found
    print("--replay: " + json.dumps(program))
    for row in range(max(len(ours), len(theirs))):
        left = ours[row] if row < len(ours) else "-"
        right = theirs[row] if row < len(theirs) else "-"
        mark = " " if left == right else "!"
        print(f" {mark} {left!s:<48} {right}")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--against", default=None, help="an interpreter with upstream gevent")
    parser.add_argument("--most", type=int, default=5, help="stop after so many differences")
    parser.add_argument("--replay", default=None)
    parser.add_argument("--serve", action="store_true")
    options = parser.parse_args()
    if options.serve:
        serve()
        return 0
    if options.against is None:
        import oracle

        options.against = str(oracle.environment())
    sides = [(options.python, {}), (options.against, {"GEVENT_LOOP": "libev-cext"})]
    if options.replay:
        with open(options.replay) as source:
            report(json.load(source), sides)
        return 0
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    passed = failed = unsteady = lost = 0
    until = time.monotonic() + options.seconds
    while time.monotonic() < until and failed < options.most:
        programs = [make(rng) for _ in range(BATCH)]
        ours, theirs = (logs(python, programs, env) for python, env in sides)
        for number, program in enumerate(programs):
            if ours[number] == theirs[number]:
                passed += 1
            elif failed < options.most:
                # Once more on its own: only what differs again is a difference.
                found = differs(program, sides)
                if not found:
                    unsteady += 1
                elif is_lost_wake(*found):
                    lost += 1
                else:
                    failed += 1
                    report(shrink(program, sides), sides)
    print(f"{unsteady} programs did one thing now and another then")
    print(f"{lost} programs hung on upstream, which lost a waiter of an event")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
