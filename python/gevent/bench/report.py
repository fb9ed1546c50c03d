"""What :mod:`gevent.bench` found, as a table and as JSON."""

import os
import platform
import time

from gevent.bench.runner import CASES

__all__ = [
    "as_data",
    "heading",
    "machine",
    "number",
    "table",
]


def machine():
    """What the machine is, as far as it says so."""
    model = platform.processor() or platform.machine()
    memory = None
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":", 1)[1] for line in file if line.startswith("model name")]
        model = names[0].strip() if names else model
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        pass
    return {
        "processor": model,
        "processors": os.cpu_count(),
        "memory": memory,
        "system": "%s %s" % (platform.system(), platform.release()),
    }


def as_data(present, absent, results, failed, how, by_cpu):
    """Everything, for a JSON file. *by_cpu*: the processors' time counts, not that on the wall."""
    return {
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
        "how": {**how, "by": "cpu" if by_cpu else "wall"},
        "contestants": {one.label: about for one, about in present},
        "absent": dict(absent),
        "cases": {
            case: {
                "unit": CASES[case][0] + "/s",
                "what": CASES[case][3],
                "best": {
                    label: max(run[by_cpu] for run in runs)
                    for label, runs in by_label.items()
                    if runs
                },
                "runs": by_label,
            }
            for case, by_label in results.items()
        },
        "failed": [list(f) for f in failed],
    }


#: What a second is one of.
BY = {"wall": "", "cpu": " of processor time"}


def number(value):
    """*value* in three or four digits: ``12.3k``, ``1.23M``."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            value /= size
            digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
            return "%.*f%s" % (digits, value, suffix)
    return "%.0f" % value


def table(data):
    """The best of each, as text; the best of all marked with a star, the ratio to the first."""
    labels = list(data["contestants"])
    rows = [["", *labels, ""]]
    for case, found in data["cases"].items():
        best = found["best"]
        top = max(best.values(), default=0)
        base = best.get(labels[0])
        row = [case]
        for label in labels:
            if label not in best:
                row.append("-")
                continue
            text = number(best[label]) + ("*" if best[label] == top else " ")
            if base and label != labels[0]:
                text += " %4.2f" % (best[label] / base)
            row.append(text)
        rows.append([*row, "%s, %s" % (found["unit"], found["what"])])
    widths = [max(len(row[i]) for row in rows) for i in range(len(labels) + 1)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=True)]
        lines.append(("  ".join(cells) + "  " + row[-1]).rstrip())
    return "\n".join(lines)


def heading(data):
    """The machine and how it was measured, in a few lines."""
    m = data["machine"]
    memory = ", %.0f GiB" % (m["memory"] / 2**30) if m["memory"] else ""
    lines = [
        "%s, %s processors%s, %s" % (m["processor"], m["processors"], memory, m["system"]),
        "best of %d, %.2f s each, in turn; per second%s"
        % (
            data["how"]["rounds"],
            data["how"]["seconds"],
            BY[data["how"]["by"]],
        ),
    ]
    for label, about in data["contestants"].items():
        backend = " on " + about["backend"] if about.get("backend") else ""
        name = "gevent " if "backend" in about else ""
        lines.append("  %s: %s%s%s, %s" % (label, name, about["version"], backend, about["python"]))
    lines += ["  not here: %s (%s)" % pair for pair in data["absent"].items()]
    lines += ["  failed: %s on %s: %s" % tuple(f) for f in data["failed"]]
    return "\n".join(lines)
