"""Draws an explanation, as `auspex predict --explain=K` prints it, as SVG.

    auspex predict models/santander/1 --explain=8 < record.jsonl | python3 scripts/explanation.py > explanation.svg

Each bar begins where the one above ends: the first at the base value, the last ends at the margin. A record on
standard input has one line; of several numbers that a model predicts, the first is drawn.
"""

import json
import sys
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, LINE = 760, 210, 70, 30
UP, DOWN, INK, GRID = "#c2410c", "#1d4ed8", "#1f2937", "#d1d5db"


def text(x, y, value, anchor="start", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(str(value))}</text>')


def draw(prediction):
    explanation = prediction["explanation"]
    if isinstance(explanation, list):
        explanation = explanation[0]
    steps = [(c["feature"], c["contribution"]) for c in explanation["contributions"]]
    if explanation["others"]:
        steps.append(("all others", explanation["others"]))
    ends = [explanation["base"]]
    for _, step in steps:
        ends.append(ends[-1] + step)
    least, most = min(ends), max(ends)
    scale = (WIDTH - LEFT - RIGHT) / ((most - least) or 1)

    def place(value):
        return LEFT + (value - least) * scale

    height = LINE * (len(steps) + 4)
    label = explanation["label"]
    title = "What made the margin" + ("" if label is None else f" of {label}")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="14" fill="{INK}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        text(16, 24, title, weight="bold"),
    ]
    for index, (name, value) in enumerate([("base", ends[0]), *steps, ("margin", ends[-1])]):
        y = LINE * (index + 2)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y + 8}" y2="{y + 8}" stroke="{GRID}"/>')
        is_total = name in ("base", "margin") and index in (0, len(steps) + 1)
        parts.append(text(16, y, name, weight="bold" if is_total else "normal"))
        if is_total:
            x = place(value)
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 16}" y2="{y + 6}" stroke="{INK}" stroke-width="3"/>')
            parts.append(text(x + 8, y, f"{value:.2f}", weight="bold"))
            continue
        begin, end = sorted([place(ends[index - 1]), place(ends[index])])
        color = UP if value > 0 else DOWN
        parts.append(
            f'<rect x="{begin:.1f}" y="{y - 14}" width="{max(end - begin, 1):.1f}" height="18" fill="{color}"/>'
        )
        parts.append(text(end + 8, y, f"{value:+.2f}"))
    return "\n".join([*parts, "</svg>"])


if __name__ == "__main__":
    print(draw(json.loads(sys.stdin.readline())))
