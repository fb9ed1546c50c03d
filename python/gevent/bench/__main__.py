"""``python -m gevent.bench``: the command line of :mod:`gevent.bench`."""

import argparse
import json
import sys

from gevent.bench import plot, report, runner


def _names(text):
    return [name.strip() for name in text.split(",") if name.strip()]


def _arguments(argv):
    parser = argparse.ArgumentParser(
        prog="python -m gevent.bench",
        description="Compare event loops on this machine: each measured in child processes, "
        "in turn, several times; the best counts.",
    )
    add = parser.add_argument
    add("--seconds", type=float, default=60, help="for everything, about (default: 60)")
    add("--loops", type=_names, help="such as epoll,uring,asyncio (default: all there are)")
    add("--cases", type=_names, help="names, or beginnings of names; see --list (default: all)")
    add("--python", action="append", default=[], metavar="PATH", help="also this one's gevent")
    add("--cpu", action="store_true", help="count processor time: for a machine with other work")
    add("--json", metavar="FILE", help="write all figures; - is the standard output")
    add("--plot", metavar="FILE", help="draw them, as SVG")
    add("--from-json", metavar="FILE", help="show what was measured before")
    add("--list", action="store_true", help="list the cases, and end")
    return parser, parser.parse_args(argv)


def _progress(done, total, spent, case, label):
    if sys.stderr.isatty():
        text = "[%d/%d] %.0f s  %s %s" % (done, total, spent, case, label)
        sys.stderr.write("\r\x1b[K" + (text if done < total else ""))
    elif done == total or done * 5 // total != (done - 1) * 5 // total:
        sys.stderr.write("%d of %d measured, %.0f s\n" % (done, total, spent))
    sys.stderr.flush()


def _measured(parser, args):
    cases = list(runner.CASES)
    if args.cases is not None:
        unknown = [n for n in args.cases if not any(c.startswith(n) for c in cases)]
        if unknown:
            parser.error("no such case: %s (there are %s)" % (unknown[0], ", ".join(cases)))
        known = set(cases).intersection(args.cases)
        parts = tuple(n for n in args.cases if n not in known)
        cases = [c for c in cases if c in known or (parts and c.startswith(parts))]
    present, absent = runner.contestants(args.loops, args.python)
    if not present or not cases:
        parser.error("nothing to measure: " + "; ".join("%s: %s" % pair for pair in absent))
    results, failed, how = runner.measure(present, cases, args.seconds, _progress)
    return report.as_data(present, absent, results, failed, how, args.cpu)


def main(argv=None):
    """Measure, and show; the exit status is 1 if anything failed."""
    parser, args = _arguments(argv)
    if args.list:
        for name, (unit, _, _, what) in runner.CASES.items():
            print("%-14s %s: %s" % (name, unit, what))
        return 0
    if args.from_json:
        with open(args.from_json) as file:
            data = json.load(file)
    else:
        data = _measured(parser, args)
    shown = sys.stderr if args.json == "-" else sys.stdout
    print(report.heading(data), file=shown)
    print(report.table(data), file=shown)
    if args.json == "-":
        json.dump(data, sys.stdout, indent=1)
    elif args.json:
        with open(args.json, "w") as file:
            json.dump(data, file, indent=1)
    if args.plot:
        with open(args.plot, "w") as file:
            file.write(plot.svg(data))
    return 1 if data["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
