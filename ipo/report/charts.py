"""Geometry of the report's charts: numbers in, positions on an SVG canvas out. The drawing itself is a template."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

MOST_DOTS = 1500
"""Dots of a chart: more take a browser long to draw, and nobody can tell them apart."""


@dataclass(frozen=True)
class Scale:
    """A linear map from `low`..`high` to pixels `start`..`end`, with round tick values."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, about: int = 5, least: float = 0.0) -> Scale:
        """A scale that holds all values, with ticks at 1, 2 or 5 times a power of ten, and at `least` so far apart."""
        low, high = min(values), max(values)
        if low == high:
            low, high = low - 0.5, high + 0.5
        raw = max((high - low) / about, least)
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
        first, last = math.floor(low / step), math.ceil(high / step)
        ticks = tuple(round(index * step, 10) for index in range(first, last + 1))
        return cls(ticks[0], ticks[-1], start, end, ticks)

    def __call__(self, value: float) -> float:
        """Pixel position of a value, to a tenth."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


@dataclass(frozen=True)
class Dot:
    """One mark of a chart, with the text that shows when pointed at."""

    x: float
    y: float
    label: str = ""
    hot: bool = False
    """Whether it is the one that the page is about."""


@dataclass(frozen=True)
class Chart:
    """A chart of dots and lines, ready for `chart.html.j2`; positions are in pixels of a `width` x `height` canvas."""

    title: str
    x_title: str
    y_title: str
    x_scale: Scale
    y_scale: Scale
    dots: tuple[Dot, ...]
    lines: tuple[tuple[str, tuple[Dot, ...]], ...]
    """Named lines, drawn in order."""
    width: int = 760
    height: int = 300

    def path(self, points: Sequence[Dot]) -> str:
        """The `points` attribute of an SVG polyline."""
        return " ".join(f"{point.x},{point.y}" for point in points)


def _is_finite(point: Sequence[float]) -> bool:
    return all(map(math.isfinite, point))


def make_chart(
    titles: tuple[str, str, str],
    dots: Sequence[tuple[float, float, str, bool]],
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]],
) -> Chart | None:
    """A chart with `titles` (chart, x axis, y axis) from data values: dots with labels, some hot, and named lines.

    Points that are no finite numbers are left out; None where no point is left.
    """
    dots = [dot for dot in dots if _is_finite(dot[:2])]
    lines = [(name, [point for point in points if _is_finite(point)]) for name, points in lines]
    if not dots and not any(points for _, points in lines):
        return None
    xs = [dot[0] for dot in dots] + [x for _, points in lines for x, _ in points]
    ys = [dot[1] for dot in dots] + [y for _, points in lines for _, y in points]
    x_scale, y_scale = Scale.over(xs, 56, 740, about=8, least=1), Scale.over(ys, 256, 16)
    placed = thinned([Dot(x_scale(x), y_scale(y), label, hot) for x, y, label, hot in dots])
    drawn = tuple((name, tuple(Dot(x_scale(x), y_scale(y)) for x, y in points)) for name, points in lines)
    return Chart(*titles, x_scale, y_scale, placed, drawn)


def thinned(dots: Sequence[Dot]) -> tuple[Dot, ...]:
    """The dots, with one in the place of those that nobody could tell apart, and never more than a page can hold.

    Hot ones stay, and are the last, on top.
    """
    apart = 0.5
    while True:
        kept: dict[tuple[int, int], Dot] = {}
        for dot in dots:
            kept.setdefault((round(dot.x / apart), round(dot.y / apart)), dot)
        if len(kept) <= MOST_DOTS:
            break
        apart *= 2
    return (*(dot for dot in kept.values() if not dot.hot), *(dot for dot in dots if dot.hot))


def stepped(points: Sequence[tuple[float, float]], end: float) -> list[tuple[float, float]]:
    """Values that hold until the next one comes, and the last until `end`, as the corners of a line of steps."""
    corners: list[tuple[float, float]] = []
    for x, y in points:
        corners += [(x, corners[-1][1]), (x, y)] if corners and corners[-1][1] != y else [(x, y)]
    return [*corners, (end, corners[-1][1])] if corners else []
