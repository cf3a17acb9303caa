"""Which charts a report has: how the candidates of a search did over its steps, and what a fit logged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ipo.prompt import METRIC_WORDS
from ipo.report.charts import Chart, make_chart
from ipo.search.history import History


def history_charts(history: History) -> list[Chart]:
    """Training accuracy, or another metric, and loss of every scored candidate over steps, and the best so far."""
    scored = history.scored()
    if not scored:
        return []
    word = METRIC_WORDS[scored[0].score.metric if scored[0].score else "accuracy"]
    values = [(e.step, 100 * e.score.value, e.text) for e in scored if e.score]
    loss = [(e.step, e.score.loss, e.text) for e in scored if e.score]
    charts = [
        make_chart(
            (f"Training {word} of every candidate", "step", f"{word}, %"),
            [(step, value, f"{value:.1f}%  {text}") for step, value, text in values],
            [("best so far", running_best(values, max))],
        ),
        make_chart(
            ("Training loss of every candidate", "step", "cross-entropy, nats"),
            [(step, value, f"{value:.4f}  {text}") for step, value, text in loss],
            [("best so far", running_best(loss, min))],
        ),
    ]
    return [chart for chart in charts if chart]


def running_best(points: Iterable[tuple[int, float, str]], better: Any) -> list[tuple[float, float]]:
    """The best value up to and including each step."""
    best: dict[int, float] = {}
    value = None
    for step, current, _ in points:
        value = current if value is None else better(value, current)
        best[step] = value
    return [(float(step), value) for step, value in best.items()]


def curve_charts(rows: list[dict[str, Any]]) -> list[Chart]:
    """One chart for each figure that a fit logged by epoch."""
    numbers = dict.fromkeys(name for row in rows for name, value in row.items() if _is_number(value))
    names = [name for name in numbers if name not in ("epoch", "seconds")]
    charts: list[Chart] = []
    for name in names:
        points = [(float(row["epoch"]), float(row[name])) for row in rows if _is_number(row.get(name))]
        chart = make_chart((name, "epoch", ""), [], [(name, points)])
        charts += [chart] if chart else []
    return charts


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
