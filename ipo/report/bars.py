"""Rows of a chart that is read like a table: a name, a line between two positions with dots on it, and a figure.

Positions are percent of the width, so that a page can lay the rows out on a screen of any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ipo.report.charts import Scale
from ipo.runs.result import Figures


@dataclass(frozen=True)
class Bar:
    """One row: a line from `start` to `end`, a full dot `at`, a hollow one `before` where there is one."""

    name: str
    start: float
    end: float
    at: float
    figure: str
    kind: str = ""
    """`hot` for the row that the page is about, `up` and `down` for gains and losses."""
    before: float | None = None


@dataclass(frozen=True)
class Bars:
    """All rows, the ticks below them with their labels, and where a dashed line stands, if any."""

    rows: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    mark: float | None = None


def interval_bars(rows: Sequence[tuple[str, Figures, str]], mark: float | None = None) -> Bars:
    """A row for each named accuracy with its interval and kind; `mark` is the accuracy of the dashed line."""
    ends = [100 * share for _, figures, _ in rows for share in (figures.low, figures.high)]
    scale = Scale.over(ends, 2, 98, about=6)
    bars = tuple(
        Bar(
            name,
            scale(100 * figures.low),
            scale(100 * figures.high),
            scale(100 * figures.value),
            f"{100 * figures.value:.1f}",
            kind,
        )
        for name, figures, kind in rows
    )
    return Bars(bars, _ticks(scale), None if mark is None else scale(100 * mark))


def change_bars(rows: Sequence[tuple[str, float, float]]) -> Bars:
    """A row for each named share before and after."""
    scale = Scale(0, 100, 2, 98, (0, 25, 50, 75, 100))
    bars = []
    for name, before, after in rows:
        start, end, points = scale(100 * before), scale(100 * after), 100 * (after - before)
        kind = "up" if points > 0 else "down" if points < 0 else ""
        bars.append(Bar(name, start, end, end, f"{points:+.1f}" if points else "0", kind, start))
    return Bars(tuple(bars), _ticks(scale))


def _ticks(scale: Scale) -> tuple[tuple[float, str], ...]:
    return tuple((scale(tick), f"{tick:g}") for tick in scale.ticks)
