"""Charts as inline SVG of a few kilobytes, whose curves are told apart by dashes and shapes as well as by colour."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeAlias

Point: TypeAlias = tuple[float, float]
Range: TypeAlias = tuple[float, float]

WIDTH, HEIGHT = 360, 230  # as wide as a phone, so that letters need no zoom there
LEFT, RIGHT, TOP, BOTTOM = 50, 350, 12, 192  # of the axes
MOST_POINTS, MARKED = 240, 30  # of a curve; up to how many points each is marked
STYLES = 6  # dashes, shapes and colours that there are


@dataclass(frozen=True)
class Curve:
    """A line, or points; a y of None or not finite leaves a gap."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    points: bool = False

    def finite(self) -> list[Point]:
        """Its points that can be drawn."""
        return [(x, y) for x, y in zip(self.x, self.y, strict=True) if y is not None and math.isfinite(y)]


@dataclass(frozen=True)
class Chart:
    """Curves over one pair of axes.

    ``marks``: vertical lines, each with its text. ``under``, ``over``: SVG that is drawn before and after the curves.
    ``diagonal``: the line of equal x and y. ``log``: a logarithmic y where it is positive and spans a decade.
    ``whole_x``: x is a whole number, such as an epoch. ``note``: a sentence under the legend.
    """

    title: str
    x_label: str
    curves: Sequence[Curve]
    log: bool = False
    x_range: Range | None = None
    y_range: Range | None = None
    diagonal: bool = False
    marks: Sequence[tuple[float, str]] = ()
    under: str = ""
    note: str = ""
    whole_x: bool = False


def number(x: float) -> str:
    """Three digits, with a minus sign of its own."""
    text = f"{x:.3g}"
    if 1e3 <= abs(x) < 1e6:
        text = f"{float(text):,.0f}"
    elif "e" in text:
        digits, _, power = text.partition("e")
        text = f"{digits}e{int(power)}"
    return text.replace("-", "−")


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most ``MOST_POINTS``: of each stretch its first point, its lowest and its highest; and the last of all."""
    if len(points) <= MOST_POINTS:
        return list(points)
    size = math.ceil(len(points) / ((MOST_POINTS - 1) // 3))
    kept: set[int] = {len(points) - 1}
    for start in range(0, len(points), size):
        stretch = range(start, min(start + size, len(points)))
        kept |= {start, min(stretch, key=lambda i: points[i][1]), max(stretch, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def ticks(low: float, high: float, most: int = 6, whole: bool = False) -> list[float]:
    """Round numbers within a range."""
    span = high - low
    step = 10.0 ** math.floor(math.log10(span / most))
    step *= next(k for k in (1, 2, 5, 10, 20) if span / (k * step) <= most)
    step = max(1.0, round(step)) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within a range; with fewer than three, twice and five times them too."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    inside = [10.0**k for k in powers if low * 0.999 <= 10.0**k <= high * 1.001]
    if len(inside) < 3:
        inside = [m * 10.0**k for k in powers for m in (1, 2, 5) if low * 0.999 <= m * 10.0**k <= high * 1.001]
    return inside[:: math.ceil(len(inside) / 6)]


class _Axes:
    """From numbers to places of the drawing."""

    def __init__(self, chart: Chart) -> None:
        points = [point for curve in chart.curves for point in curve.finite()]
        xs, ys = [x for x, _ in points] or [0.0], [y for _, y in points] or [0.0]
        self.log = chart.log and min(ys) > 0.0 and max(ys) > 10.0 * min(ys)
        self.x, self.y = chart.x_range or _widened(min(xs), max(xs), 0.0), chart.y_range or self._range(ys)
        self.x_ticks = ticks(*self.x, whole=chart.whole_x)
        self.y_ticks = log_ticks(*self.y) if self.log else ticks(*self.y)

    def _range(self, ys: Sequence[float]) -> Range:
        if self.log:
            return min(ys) / 1.1, max(ys) * 1.1
        return _widened(min(ys), max(ys), 0.05)

    def across(self, x: float) -> float:
        """The place of an x."""
        return LEFT + (RIGHT - LEFT) * (x - self.x[0]) / (self.x[1] - self.x[0])

    def down(self, y: float) -> float:
        """The place of a y."""
        low, high = self.y
        if self.log:
            low, high, y = math.log(low), math.log(high), math.log(y)
        return BOTTOM - (BOTTOM - TOP) * (y - low) / (high - low)

    def drawn(self, chart: Chart) -> str:
        """Grid, numbers and the label of x."""
        found = []
        for x in self.x_ticks:
            at = f"{self.across(x):.1f}"
            found.append(f'<path class="grid" d="M{at} {TOP}V{BOTTOM}"/>')
            found.append(f'<text class="x" x="{at}" y="{BOTTOM + 15}">{number(x)}</text>')
        for y in self.y_ticks:
            height = self.down(y)
            found.append(f'<path class="grid" d="M{LEFT} {height:.1f}H{RIGHT}"/>')
            found.append(f'<text class="y" x="{LEFT - 5}" y="{height + 4:.1f}">{number(y)}</text>')
        found.append(f'<path class="axis" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>')
        found.append(f'<text class="x" x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 32}">{escape(chart.x_label)}</text>')
        return "".join(found)


def _widened(low: float, high: float, by: float) -> Range:
    if not high > low:
        margin = abs(low) * 0.1 or 1.0
        return low - margin, high + margin
    return low - by * (high - low), high + by * (high - low)


def drawn(chart: Chart) -> str:
    """A figure: its title, the drawing, a legend, and the numbers that a script shows under the pointer."""
    axes = _Axes(chart)
    parts = [axes.drawn(chart), chart.under]
    if chart.diagonal:
        low, high = max(axes.x[0], axes.y[0]), min(axes.x[1], axes.y[1])
        ends = [f"{axes.across(v):.1f} {axes.down(v):.1f}" for v in (low, high)]
        parts.append(f'<path class="diagonal" d="M{ends[0]}L{ends[1]}"/>')
    for x, text in chart.marks:
        at = axes.across(x)
        side, place = ("end", at - 4) if at > (LEFT + RIGHT) / 2 else ("start", at + 4)
        parts.append(f'<path class="mark" d="M{at:.1f} {TOP}V{BOTTOM}"/>')
        label = f'<text x="{place:.1f}" y="{TOP + 9}" text-anchor="{side}">{escape(text)}</text>'
        parts.append(label)
    read = []
    for k, curve in enumerate(chart.curves):
        points = curve.finite() if curve.points else thinned(curve.finite())
        placed = [(axes.across(x), axes.down(y)) for x, y in points]
        parts.append(shapes(placed, k) if curve.points else _line(placed, k, len(points) <= MARKED))
        if not curve.points:
            read.append([curve.name, [[_short(x), _short(y)] for x, y in points]])
    said = f"{chart.title}. " + "; ".join(map(_summary, chart.curves))
    values = ""
    if any(points for _, points in read):
        span = [LEFT, RIGHT, *axes.x]
        embedded = json.dumps({"span": span, "x": chart.x_label, "curves": read}, separators=(",", ":"))
        values = f' tabindex="0" data-values="{escape(embedded)}"'
    return (
        f'<figure><figcaption>{escape(chart.title)}</figcaption><svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{escape(said)}"{values}>{"".join(parts)}</svg>'
        f"{legend(chart.curves)}{_note(chart.note)}</figure>"
    )


def _note(text: str) -> str:
    return f'<p class="more">{escape(text)}</p>' if text else ""


def _short(x: float) -> float:
    return float(f"{x:.5g}")


def _summary(curve: Curve) -> str:
    points = curve.finite()
    if not points:
        return f"{curve.name}: nothing"
    if curve.points:
        return f"{curve.name}: {len(points)} points"
    return f"{curve.name}: from {number(points[0][1])} to {number(points[-1][1])}"


def _line(points: Sequence[Point], style: int, marked: bool) -> str:
    if not points:
        return ""
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    line = f'<path class="curve s{style % STYLES}" d="{path}"/>'
    return line + (shapes(points, style) if marked else "")


def shapes(points: Iterable[Point], style: int, size: float = 3.0) -> str:
    """A disc, a square, a cross, a triangle, a diamond or a ring at each point, in one path."""
    r, kind = size, style % STYLES
    shape = (
        f"m{-r} 0a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z",
        f"m{-r} {-r}h{2 * r}v{2 * r}h{-2 * r}z",
        f"m{-r} {-r}l{2 * r} {2 * r}m0 {-2 * r}l{-2 * r} {2 * r}",
        f"m0 {-r}l{r} {2 * r}h{-2 * r}z",
        f"m0 {-1.3 * r:g}l{1.3 * r:g} {1.3 * r:g}l{-1.3 * r:g} {1.3 * r:g}l{-1.3 * r:g} {-1.3 * r:g}z",
        f"m{-r} 0a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z",
    )[kind]
    path = "".join(f"M{x:.1f} {y:.1f}{shape}" for x, y in points)
    return f'<path class="dots s{kind}" d="{path}"/>' if path else ""


def legend(curves: Sequence[Curve]) -> str:
    """Which dashes and shapes are which curve's, of those that have points; nothing for a single one."""
    if len(curves) < 2:
        return ""
    keys = []
    for k, curve in enumerate(curves):
        if not curve.finite():
            continue
        line = "" if curve.points else f'<path class="curve s{k % STYLES}" d="M1 7H27"/>'
        sample = line + (shapes([(14, 7)], k) if curve.points or len(curve.x) <= MARKED else "")
        keys.append(f'<li><svg viewBox="0 0 28 14" aria-hidden="true">{sample}</svg>{escape(curve.name)}</li>')
    return f'<ul class="legend">{"".join(keys)}</ul>'
