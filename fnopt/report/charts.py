"""Line charts as inline SVG: text that a browser can find, and no files beside the page."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 38
COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#A04FB0", "#C8A200", "#111111", "#56B4E9", "#8C510A",
    "#E7298A", "#66A61E",
)  # fmt: skip


class Line(NamedTuple):
    """A named curve: (x, y) points in order; points that are no number are left out."""

    name: str
    points: Sequence[tuple[float, float]]
    color: str
    dashed: bool = False


def chart(title: str, lines: Sequence[Line], unit: str = "", log: bool | None = None) -> str:
    """A figure with a title, the curves over the epochs, and a legend.

    Args:
      title: above it.
      lines: the curves.
      unit: behind the numbers of the vertical axis.
      log: whether that axis is logarithmic; None to see whether the values span a factor of 30.

    Returns:
      HTML; an empty string if there is no point.
    """
    kept = [line._replace(points=[p for p in line.points if math.isfinite(p[1])]) for line in lines]
    kept = [line for line in kept if line.points]
    if not kept:
        return ""
    values = [y for line in kept for _, y in line.points]
    if log is None:
        above = [y for y in values if y > 0]
        log = len(above) > 0.9 * len(values) and max(above) > 30 * min(above)
    if log:
        kept = [line._replace(points=[p for p in line.points if p[1] > 0]) for line in kept]
        values = [y for line in kept for _, y in line.points]
    ticks, low, high = (log_ticks if log else even_ticks)(min(values), max(values))
    last = max(x for line in kept for x, _ in line.points)
    first = min(x for line in kept for x, _ in line.points)
    scale = math.log if log else float

    def across(x: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (x - first) / ((last - first) or 1)

    def up(y: float) -> float:
        share = (scale(y) - scale(low)) / ((scale(high) - scale(low)) or 1)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share

    drawn = []
    for tick in ticks:
        y = f"{up(tick):.1f}"
        drawn.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}" class="grid"/>')
        drawn.append(f'<text x="{LEFT - 8}" y="{y}" class="left">{number(tick)}{unit}</text>')
    for x in whole_ticks(first, last):
        drawn.append(f'<text x="{across(x):.1f}" y="{HEIGHT - 18}" class="below">{x}</text>')
    drawn.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 3}" class="below">epoch</text>'
    )
    for line in kept:
        drawn.append(_curve(line, [(across(x), up(y)) for x, y in line.points], unit))
    legend = "".join(
        f'<span><i style="border-top:3px {"dashed" if line.dashed else "solid"} {line.color}"></i>'
        f"{html.escape(line.name)}</span>"
        for line in kept
    )
    key = f'<div class="key">{legend}</div>' if len(kept) > 1 else ""
    name = html.escape(title)
    return (
        f"<figure><figcaption>{name}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(drawn)}</svg>'
        f"{key}</figure>"
    )


def _curve(line: Line, places: Sequence[tuple[float, float]], unit: str) -> str:
    """The path, and at its end a dot that tells the last value to a pointer."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dashes = ' stroke-dasharray="7 4"' if line.dashed else ""
    x, y = places[-1]
    epoch, value = line.points[-1]
    told = f"{html.escape(line.name)}: {value:.4g}{unit} after epoch {epoch:g}"
    return (
        f'<polyline points="{path}" fill="none" stroke="{line.color}" stroke-width="2"'
        f"{dashes}><title>{told}</title></polyline>"
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{line.color}"><title>{told}</title>'
        "</circle>"
    )


def number(value: float) -> str:
    """A tick's number in few words: `0.01`, `1e-5`."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.6g}"
    digits, power = f"{value:.3e}".split("e")
    return f"{float(digits):g}e{int(power)}"


def even_ticks(low: float, high: float) -> tuple[list[float], float, float]:
    """Round ticks an equal distance apart, and the ends of an axis that holds all values."""
    span = (high - low) or abs(high) or 1.0
    step = 10.0 ** math.floor(math.log10(span / 4))
    step *= next(m for m in (1, 2, 5, 10) if span / (step * m) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    return [k * step for k in range(first, last + 1)], first * step, last * step


def log_ticks(low: float, high: float) -> tuple[list[float], float, float]:
    """Powers of ten, few of them, or 1, 2, 5 where there is none; and the ends of the axis."""
    low, high = low / 1.15, high * 1.15
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    every = max(1, math.ceil((last - first + 1) / 6))
    ticks = [10.0**k for k in range(first, last + 1, every)]
    if len(ticks) < 3:
        many = [m * 10.0**k for k in range(first - 1, last + 1) for m in (1, 2, 5)]
        ticks = [t for t in many if low <= t <= high]
    return ticks or [low], low, high


def whole_ticks(first: float, last: float) -> list[int]:
    """At most eight whole numbers from first to last."""
    span = max(1, int(last) - int(first))
    step = next(m * 10**k for k in range(9) for m in (1, 2, 5) if span / (m * 10**k) <= 7)
    inner = [x for x in range(0, int(last) + 1, step) if x >= first]
    return inner or [int(last)]


def colors(names: Sequence[str]) -> Mapping[str, tuple[str, bool]]:
    """A colour for each name, and whether its line is dashed: where the colours come again."""
    n = len(COLORS)
    return {name: (COLORS[i % n], i >= n) for i, name in enumerate(names)}
