"""The picture of :mod:`gevent.bench`: bars, grouped by case, as SVG."""

from html import escape

from gevent.bench.report import BY, number

__all__ = [
    "svg",
]

#: Told apart by hue and by lightness, on white and on black.
COLOURS = ("#2563eb", "#f59e0b", "#059669", "#7c3aed", "#64748b", "#db2777", "#0891b2", "#84cc16")

COLUMNS, WIDTH, GAP = 2, 470, 40
BAR, ROW, TITLE, SPACE, TOP, MARGIN = 13, 17, 22, 16, 64, 20
LABEL, VALUE = 118, 62


def svg(data):
    """*data*, of :func:`gevent.bench.report.as_data`, drawn."""
    labels = list(data["contestants"])
    blocks = [(case, found) for case, found in data["cases"].items() if found["best"]]
    height = TITLE + ROW * len(labels) + SPACE
    per_column = -(-len(blocks) // COLUMNS)
    width = MARGIN * 2 + WIDTH * COLUMNS + GAP * (COLUMNS - 1)
    total = TOP + height * per_column + MARGIN
    m, by = data["machine"], BY[data["how"]["by"]]
    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" '
        'font-family="system-ui, sans-serif" font-size="11">' % (width, total, width, total),
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        _text(MARGIN, 28, "gevent.bench: more is better", 'font-size="17" font-weight="600"'),
        _text(
            MARGIN,
            46,
            "%s, %s processors, %s, %s; per second%s; bars are relative to the best of each case"
            % (m["processor"], m["processors"], m["system"], data["date"], by),
            'fill="#475569"',
        ),
    ]
    for n, (case, found) in enumerate(blocks):
        x = MARGIN + (n // per_column) * (WIDTH + GAP)
        y = TOP + (n % per_column) * height
        out += _block(x, y, case, found, labels)
    return "\n".join([*out, "</svg>", ""])


def _block(x, y, case, found, labels):
    title = "%s (%s)" % (found["what"], found["unit"])
    yield _text(x, y + 14, case, 'font-weight="600" font-size="12"')
    yield _text(x + WIDTH, y + 14, title, 'text-anchor="end" fill="#475569"')
    top = max(found["best"].values())
    room = WIDTH - LABEL - VALUE
    for n, label in enumerate(labels):
        row = y + TITLE + n * ROW
        yield _text(x + LABEL - 8, row + 10, label, 'text-anchor="end"')
        value = found["best"].get(label)
        if value is None:
            yield _text(x + LABEL, row + 10, "failed", 'fill="#94a3b8"')
            continue
        length = max(1.0, room * value / top)
        yield (
            '<rect x="%d" y="%d" width="%.1f" height="%d" rx="2" fill="%s"/>'
            % (x + LABEL, row, length, BAR, COLOURS[n % len(COLOURS)])
        )
        weight = ' font-weight="600"' if value == top else ""
        yield _text(x + LABEL + length + 6, row + 10, number(value), weight)


def _text(x, y, text, more=""):
    return '<text x="%.1f" y="%.1f" %s>%s</text>' % (x, y, more, escape(text))
