"""Draws the records of a soak as SVG: latency, memory and descriptors over time, with a line at each event.

    tests/e2e/soak_plot.py target/soak/production      reads .csv and .events, writes .svg
"""
import csv
import math
import sys
from html import escape
from pathlib import Path

WIDTH, PANEL, LEFT, RIGHT, TOP, GAP = 900, 150, 80, 130, 40, 46
COLORS = ("#0072b2", "#d55e00", "#009e73")
# Title, unit, divisor, then columns with their names.
PANELS = (
    ("Latency", "ms", 1000, (("p50_us", "median"), ("p99_us", "99 %"), ("max_us", "longest")), True),
    ("Memory", "MiB", 1024, (("memory_kib", "nginx, anonymous"), ("redis_kib", "Redis")), False),
    ("Open descriptors", "", 1, (("descriptors", "nginx"),), False),
)


def events(results):
    """Seconds and name of each event."""
    path = Path(f"{results}.events")
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(seconds), event) for seconds, event in (line.split(",", 1) for line in lines)]


def rounded_up(value):
    """The next number of the form 1, 2, 5 or 10 times a power of ten."""
    power = 10 ** math.floor(math.log10(max(value, 1e-9)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * 0.9999)


def number(value):
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:g}"


def panel(top, end, records, title, unit, divisor, columns, is_logarithmic):
    values = {column: [float(record[column]) / divisor for record in records] for column, _ in columns}
    high = rounded_up(max(max(series) for series in values.values()))
    low = 10 ** math.floor(math.log10(max(min(min(series) for series in values.values()), 0.01))) if is_logarithmic else 0

    def y(value):
        share = math.log(max(value, low) / low) / math.log(high / low) if is_logarithmic else value / high
        return top + PANEL * (1 - share)

    def x(record):
        return LEFT + (WIDTH - LEFT - RIGHT) * float(record["seconds"]) / end
    if is_logarithmic:
        ticks = [low * 10 ** i for i in range(round(math.log10(high / low)) + 1)]
    else:
        ticks = [high * i / 4 for i in range(5)]
    yield f'<text x="{LEFT}" y="{top - 8}" class="title">{escape(title)}{f", {unit}" if unit else ""}</text>'
    for tick in ticks:
        if y(tick) >= top - 1:
            yield f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" class="grid"/>'
            yield f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{number(tick)}</text>'
    for at, (column, label) in enumerate(columns):
        points = " ".join(f"{x(record):.1f},{y(value):.1f}" for record, value in zip(records, values[column]))
        yield f'<polyline points="{points}" fill="none" stroke="{COLORS[at]}" stroke-width="1.5"/>'
        yield f'<text x="{WIDTH - RIGHT + 8}" y="{top + 14 + 16 * at}" style="fill:{COLORS[at]}">{escape(label)}</text>'


def draw(results):
    with open(f"{results}.csv", newline="") as file:
        records = list(csv.DictReader(file))
    if not records:
        raise SystemExit(f"{results}.csv has no records")
    end = max(float(records[-1]["seconds"]), 1)
    height = TOP + len(PANELS) * (PANEL + GAP) + 20
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
             "<style>text{fill:#555}.title{font-weight:bold}.grid{stroke:#8884}.event{stroke:#8888;stroke-dasharray:3 3}"
             "@media(prefers-color-scheme:dark){text{fill:#bbb}}</style>"]
    for index, (seconds, event) in enumerate(events(results)):
        at = LEFT + (WIDTH - LEFT - RIGHT) * seconds / end
        lines.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 8}" y2="{height - 40}" class="event"><title>{escape(event)}</title></line>')
        lines.append(f'<text x="{at:.1f}" y="{8 + index % 2 * 11}" text-anchor="middle" font-size="10">{escape(event)}</text>')
    for at, rows in enumerate(PANELS):
        lines += panel(TOP + at * (PANEL + GAP), end, records, *rows)
    minutes = end / 60
    step = rounded_up(minutes / 6)
    for i in range(int(minutes / step) + 1):
        at = LEFT + (WIDTH - LEFT - RIGHT) * i * step / minutes
        lines.append(f'<text x="{at:.1f}" y="{height - 20}" text-anchor="middle">{number(i * step)}</text>')
    lines.append(f'<text x="{WIDTH - RIGHT + 8}" y="{height - 20}">minutes</text>')
    Path(f"{results}.svg").write_text("\n".join(lines) + "\n</svg>\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    draw(sys.argv[1].removesuffix(".csv"))
