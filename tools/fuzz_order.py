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


class Run:
    """A program as it runs on the gevent of this process, and its log."""

    def __init__(self, program: list[list[list]]):
        import greenlet

        import gevent
        from gevent import event, lock, pool, queue

        self.greenlet = greenlet.greenlet
        self.gevent = gevent
        self.hub = gevent.get_hub()
        self.hub.exception_stream = None
        self.log: list[str] = []
        self.shared = {
            "event": [event.Event() for _ in range(KINDS["event"])],
            "queue": [queue.Queue(), queue.Queue(1), queue.Queue(2)],
            "semaphore": [lock.Semaphore(1), lock.BoundedSemaphore(2)],
            "rlock": [lock.RLock()],
            "result": [event.AsyncResult() for _ in range(KINDS["result"])],
            "channel": [queue.Channel()],
            "pool": [pool.Pool(2)],
        }
        # Greenlets that the program's own ones spawn, and timers that they start.
        self.spawned: list = []
        self.timers: list = []
        self.names: dict = {}
        self.greenlets = [
            gevent.Greenlet(self.body, number, operations)
            for number, operations in enumerate(program)
        ]
        for number, one in enumerate(self.greenlets):
            self.names[one] = f"g{number}"
        self.ways = self.ways_to_operate()

    def name_of(self, value):
        """*value* in the log: greenlets and errors by what both sides call them."""
        if isinstance(value, self.greenlet):
            return self.names.get(value, "?")
        if isinstance(value, (list, tuple, set)):
            return type(value)(self.name_of(item) for item in value)
        if isinstance(value, BaseException):
            return type(value).__name__
        return value

    def child(self, me, steps):
        for step in range(steps):
            self.log.append(f"{me} child {step}")
            self.gevent.sleep(0)
        return me

    def linked(self, source):
        self.log.append(f"linked {self.names.get(source, 'result')}")

    def body(self, me, operations):
        for step, (name, index) in enumerate(operations):
            self.log.append(f"{me} {step} {name} {index}")
            try:
                got = self.operate(f"{me}.{step}", name, index)
            except Exception as error:
                text = f"{type(error).__name__}: {error_text(error)}"
                self.log.append(f"{me} {step} raised {text}")
            except self.gevent.Timeout as error:
                self.log.append(f"{me} {step} timeout {error.seconds}")
            except self.gevent.GreenletExit:
                self.log.append(f"{me} {step} killed")
                raise
            else:
                self.log.append(f"{me} {step} -> {self.name_of(got)!r}")
        return me

    def operate(self, tag, name, index):
        """Does one operation; *tag* is what it leaves behind."""
        kind = OPERATIONS[name]
        one = None
        if kind:
            one = self.greenlets[index] if kind == "greenlet" else self.shared[kind][index]
        if name in self.ways:
            return self.ways[name](one, tag)
        return getattr(one, name.split(".")[-1])()

    def ways_to_operate(self):
        """How the operations are done that are not just a method without arguments."""
        gevent = self.gevent
        return {
            "sleep": lambda one, tag: gevent.sleep(0),
            "idle": lambda one, tag: gevent.idle(),
            "event.wait0": lambda one, tag: one.wait(timeout=0),
            "queue.put": lambda one, tag: one.put(tag),
            "queue.put_nowait": lambda one, tag: one.put_nowait(tag),
            "queue.get0": lambda one, tag: one.get(timeout=0),
            "semaphore.try": lambda one, tag: one.acquire(blocking=False),
            "semaphore.acquire0": lambda one, tag: one.acquire(timeout=0),
            "result.set": lambda one, tag: one.set(tag),
            "result.fail": lambda one, tag: one.set_exception(ValueError(tag)),
            "channel.put": lambda one, tag: one.put(tag),
            "pool.spawn": lambda one, tag: one.spawn(self.child, tag, 2).ready(),
            "pool.map": lambda one, tag: one.map(lambda n: self.child(f"{tag}m{n}", 1), range(3)),
            "pool.kill": lambda one, tag: one.kill(),
            "timeout": lambda one, tag: self.late(),
            "timeout.quiet": lambda one, tag: self.late(False),
            "callback": lambda one, tag: self.callback(tag),
            "timer": lambda one, tag: self.timer(tag),
            "raw": lambda one, tag: gevent.spawn_raw(self.child, tag, 1).dead,
            "raise": lambda one, tag: self.fail(tag),
            "spawn": lambda one, tag: self.spawn(tag),
            "join0": lambda one, tag: one.join(timeout=0),
            "kill": lambda one, tag: one.kill() if one is not gevent.getcurrent() else None,
            "kill.later": lambda one, tag: one.kill(block=False),
            "link": lambda one, tag: one.link(self.linked),
            "unlink": lambda one, tag: one.unlink(self.linked),
            "rawlink.event": lambda one, tag: one.rawlink(self.linked),
            "wait.one": lambda one, tag: len(gevent.wait(self.others(), count=1)),
            "iwait": lambda one, tag: [self.names[g] for g in gevent.iwait([one], count=1)],
            "ready": lambda one, tag: (
                one.ready(),
                one.successful(),
                one.started,
                self.name_of(one.exception),
            ),
        }

    def late(self, *exception):
        with self.gevent.Timeout(0, *exception):
            return self.gevent.sleep(10)
        return "quiet"

    def callback(self, tag):
        return self.hub.loop.run_callback(self.log.append, f"callback {tag}").pending

    def timer(self, tag):
        self.timers.append(self.hub.loop.timer(0))
        return self.timers[-1].start(self.log.append, f"timer {tag}")

    def fail(self, tag):
        raise KeyError(tag)

    def spawn(self, tag):
        spawned = self.gevent.spawn(self.child, tag, 2)
        self.names[spawned] = f"child of {tag}"
        self.spawned.append(spawned)
        return spawned.started

    def others(self):
        return [g for g in self.greenlets if g is not self.gevent.getcurrent()]

    def settle(self):
        """Waits until all have ended, or nothing happens any more.

        Not by joinall: its own links would stand in the order that is looked at.
        """
        deadline = time.monotonic() + PATIENCE
        quiet = 0
        while quiet < 3 and time.monotonic() < deadline:
            before = len(self.log)
            self.gevent.sleep(0.001)
            quiet = quiet + 1 if len(self.log) == before else 0
            if all(one.dead for one in self.greenlets):
                break

    def perform(self) -> list[str]:
        """Runs it to its end; returns the log."""
        log = self.log
        for one in self.greenlets:
            one.start()
        self.settle()
        log.append("end " + " ".join("dead" if one.dead else "parked" for one in self.greenlets))
        for one in [*self.greenlets, *self.spawned, *self.shared["pool"][0].greenlets]:
            one.kill(timeout=1)
        for timer in self.timers:
            timer.close()
        log.append("after " + repr([(g.ready(), self.name_of(g.value)) for g in self.greenlets]))
        self.gevent.sleep(0)
        # libev's heap gives timers that are due at the same time in any order.
        runs = itertools.groupby(log, key=lambda line: line.startswith("timer "))
        return [line for due, run in runs for line in (sorted(run) if due else run)]


def error_text(error):
    # Texts that hold addresses or the repr of an object of ours say nothing about order.
    return "" if "0x" in str(error) or "<" in str(error) else str(error)


def serve() -> None:
    """The child: a program a line on stdin, its log a line on stdout."""
    for line in sys.stdin:
        try:
            log = Run(json.loads(line)).perform()
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
