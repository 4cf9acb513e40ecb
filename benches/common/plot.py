"""Draws figures as SVG, readable on a light and on a dark page: a dot for each figure, a line for its range, dashes for targets."""
import html
import math
import re

CHARACTER, PLOT, RIGHT = 6.6, 400, 30  # widths
LINE, GAP, TOP, BOTTOM = 16, 10, 34, 44  # heights
STYLE = """text { font: 12px sans-serif; fill: #1f2328 } .axis, .grid { stroke: #8c959f; stroke-width: 1 } .grid { stroke-opacity: .3 }
.s0 { stroke: #0969da; fill: #0969da } .s1 { stroke: #bc4c00; fill: #bc4c00 } .s2 { stroke: #1a7f37; fill: #1a7f37 }
line.s0, line.s1, line.s2 { stroke-width: 2 } .target { stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .s0 { stroke: #58a6ff; fill: #58a6ff } .s1 { stroke: #f0883e; fill: #f0883e }
.s2 { stroke: #3fb950; fill: #3fb950 } }"""
FIGURE = re.compile(r"[+-]?([\d,]+(?:\.\d+)?)(?: \(([\d.]+)-([\d.]+)\))?")


def read(text):
    """(figure, least, most) of a cell such as `1.10 (0.84-1.64)` or `4.8 %`; None of a cell without a figure."""
    found = FIGURE.search(text)
    if not found:
        return None
    figure = float(found[1].replace(",", ""))
    return figure, float(found[2] or figure), float(found[3] or figure)


def step_of(most):
    """A round distance of ticks, of which up to eight fit."""
    raw = most / 8
    power = 10 ** math.floor(math.log10(raw))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)


def draw(title, axis, series, rows):
    """series: (name, target or None) each; rows: (label, cells), a cell for each of the series."""
    found = [(label, [read(cell) for cell in cells]) for label, cells in rows]
    targets = [read(target)[0] for _, target in series if target]
    most = max([figure[2] for _, cells in found for figure in cells if figure] + targets) * 1.02
    step = step_of(most)
    height = TOP + sum(LINE * len(series) + GAP for _ in found) + BOTTOM
    labels = round(CHARACTER * max(len(label) for label, _ in found)) + 20
    width = labels + PLOT + RIGHT
    base = height - BOTTOM

    def x(value):
        return f"{labels + PLOT * value / most:.1f}"

    def line(kind, x1, y1, x2, y2):
        return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'

    def text(at, y, words, anchor="start"):
        return f'<text x="{at}" y="{y}" text-anchor="{anchor}">{html.escape(words)}</text>'

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
             f"<title>{html.escape(title)}</title>", f"<style>{STYLE}</style>"]
    at = 10
    for number, (name, target) in enumerate(series):
        words = f"{name}, target {target} (dashes)" if target else name
        parts += [f'<circle class="s{number}" cx="{at + 5}" cy="14" r="4"/>', text(at + 15, 18, words)]
        at += 25 + round(CHARACTER * len(words))
    for tick in range(int(most / step) + 1):
        parts += [line("grid", x(tick * step), TOP, x(tick * step), base), text(x(tick * step), base + 16, f"{tick * step:g}", "middle")]
    parts += [line("axis", labels, base, labels + PLOT, base), text(labels + PLOT / 2, base + 36, axis, "middle")]
    for number, (_, target) in enumerate(series):
        if target:
            value = x(read(target)[0])
            parts.append(line(f"s{number} target", value, TOP, value, base))
    y = TOP + GAP / 2
    for label, cells in found:
        parts.append(text(labels - 10, f"{y + LINE * len(series) / 2 + 4:.1f}", label, "end"))
        for number, figure in enumerate(cells):
            middle = y + LINE * number + LINE / 2
            if figure:
                parts += [line(f"s{number}", x(figure[1]), middle, x(figure[2]), middle)] if figure[1] < figure[2] else []
                parts.append(f'<circle class="s{number}" cx="{x(figure[0])}" cy="{middle}" r="4"/>')
        y += LINE * len(series) + GAP
    return "\n".join([*parts, "</svg>"]) + "\n"
