#!/usr/bin/env python3
"""Random programs of greenlets have to do the same under ours and under the real greenlet.

    python tests/greenlet_fuzz.py [--python PYTHON] [--core PATH] [--seeds FIRST:LAST]

A seed makes a program of up to fourteen greenlets that switch, throw, drop and reparent each other
and handle exceptions while they do; every step is written down. The programs run once with the
real greenlet (the wheel that ``greenlet_suite.py`` fetches) and once with ours, and the first one
whose record differs is printed. Left out is a GreenletExit that a finished greenlet hands to a
parent which never ran: there the real one reads the exception as if it were a tuple.
"""

import argparse
import difflib
import gc
import os
import random
import re
import subprocess
import sys
from pathlib import Path

STEPS = 120
GREENLETS = 14


class Boom(Exception):
    """What the programs throw at each other."""


class Program:
    """One random program and the record of its steps."""

    def __init__(self, seed):
        import greenlet

        self.module = greenlet
        self.random = random.Random(seed)
        self.traced = seed % 3 == 0
        self.main = greenlet.getcurrent()
        self.live = {}
        self.made = 0
        self.steps = STEPS
        self.log = []
        self.odd = False

    def pick(self):
        return self.random.choice(sorted(self.live))

    def name(self, g):
        return "main" if g is self.main else getattr(g, "number", "?")

    def note(self, *words):
        self.log.append(" ".join(re.sub("0x[0-9a-f]+", "0x", str(word)) for word in words))

    def show(self, value):
        return type(value).__name__ if isinstance(value, BaseException) else value

    def body(self, *args, **kwargs):
        me = self.module.getcurrent()
        self.odd = self.odd or any(isinstance(a, BaseException) for a in args)
        self.note(me.number, "starts", args, kwargs, "below", self.name(me.parent))
        me = me.number
        return self.act(me, 0)

    def act(self, me, depth):
        while self.steps > 0:
            self.steps -= 1
            try:
                if self.step(me, depth, self.random.randrange(13)):
                    return ("result of", me)
            except Boom as error:
                self.note(me, "Boom", error, type(error.__context__).__name__)
                if self.random.random() < 0.3:
                    raise
            except self.module.GreenletExit as error:
                self.note(me, "exit", error)
                if self.random.random() < 0.8:
                    raise
            except (ValueError, self.module.error, AttributeError, TypeError) as error:
                self.note(me, type(error).__name__, error)
        return None

    def step(self, me, depth, choice):
        """Takes one step; true to return from the greenlet."""
        if choice <= 2 and self.live:
            self.switch(me, self.pick())
        elif choice == 3 and self.live:
            self.throw(me, self.pick())
        elif choice == 4:
            self.note(me, "to main")
            self.note(me, "got", self.show(self.main.switch(me)))
        elif choice <= 6 and self.made < GREENLETS:
            self.make(me)
        elif choice == 7 and self.live:
            number = self.pick()
            self.note(me, "drops", number)
            del self.live[number]
            self.note(me, "dropped", number)
        elif choice == 8 and self.live:
            child, parent = self.pick(), self.pick()
            self.note(me, "puts", child, "below", parent)
            self.live[child].parent = self.live[parent]
        elif choice == 9 and depth < 4:
            try:
                self.act(me, depth + 1)
            finally:
                self.note(me, "leaves with", sys.exc_info()[0])
        elif choice == 10 and depth:
            raise Boom(me)
        elif choice == 12 and depth < 4:
            try:
                raise KeyError(me)
            except KeyError as error:
                self.act(me, depth + 1)
                self.note(me, "still handles", sys.exc_info()[1] is error)
        return choice == 11 and me != "main"

    def make(self, me):
        self.made += 1
        number = self.made
        above = self.live and self.random.random() < 0.5
        self.live[number] = self.module.greenlet(
            self.body, self.live[self.pick()] if above else None
        )
        self.live[number].number = number
        self.note(me, "makes", number)

    def switch(self, me, number):
        args = self.random.choice([(), (1,), (1, 2)])
        kwargs = self.random.choice([{}, {}, {}, {"a": 1}])
        target = self.live[number]
        self.note(me, "to", number, target.dead, bool(target))
        switch = target.switch
        del target
        self.note(me, "got", self.show(switch(*args, **kwargs)))

    def throw(self, me, number):
        exit_ = self.module.GreenletExit
        args = self.random.choice([(), (Boom, number), (Boom("instance"),), (exit_, "x")])
        self.note(me, "throws", self.show(args and args[0]), "into", number)
        throw = self.live[number].throw
        self.note(me, "got", self.show(throw(*args)))

    def trace(self, event, pair):
        self.note(event, self.name(pair[0]), self.name(pair[1]))

    def run(self):
        if self.traced:
            self.module.settrace(self.trace)
        for _ in range(4):
            try:
                self.act("main", 0)
            except BaseException as error:
                self.note("main", "raised", type(error).__name__, error)
            self.steps += 30
        self.steps = 0
        self.note(sorted((n, g.dead, bool(g)) for n, g in self.live.items()))
        for number in sorted(self.live):
            try:
                del self.live[number]
            except BaseException as error:
                self.note("end", type(error).__name__)
        self.module.settrace(None)
        self.note("main again", self.module.getcurrent() is self.main, sys.exc_info()[0])


def run_seeds(first, last):
    """The child's part: runs programs and prints their records."""
    gc.disable()
    for seed in range(first, last):
        program = Program(seed)
        sys.unraisablehook = lambda u, p=program: p.note("unraisable", type(u.exc_value).__name__)
        program.run()
        print("SEED", seed, "odd" if program.odd else "")
        print("\n".join(program.log), flush=True)


def records(python, env, seeds):
    """The records of a range of seeds under one greenlet, by their first line."""
    done = subprocess.run(
        [python, __file__, "--child", "--seeds", seeds],
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}\nstatus {done.returncode}")
    found = re.split(r"^SEED (\d+) ?(\w*)\n", done.stdout, flags=re.M)[1:]
    return {int(n): (odd, log) for n, odd, log in zip(found[::3], found[1::3], found[2::3])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--core", type=Path, help="folder that holds the package gevent")
    parser.add_argument("--seeds", default="0:500")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    first, last = map(int, args.seeds.split(":"))
    if args.child:
        run_seeds(first, last)
        return 0
    import greenlet_suite

    _, folder = greenlet_suite.prepare(args.python)
    env = greenlet_suite.environment(folder, args.core and args.core.resolve())
    ours = records(args.python, env, args.seeds)
    real = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    real["PYTHONPATH"] = str(folder / "wheel")
    theirs = records(args.python, real, args.seeds)
    odd = [seed for seed in ours if ours[seed][0]]
    differ = [s for s in ours if s not in odd and ours[s][1] != theirs[s][1]]
    for seed in differ[:1]:
        lines = [theirs[seed][1].splitlines(), ours[seed][1].splitlines()]
        print(f"seed {seed}:")
        print("\n".join(difflib.unified_diff(*lines, "real", "ours", n=10, lineterm="")))
    print(f"{len(ours)} programs, {len(odd)} left out, {len(differ)} differ")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
