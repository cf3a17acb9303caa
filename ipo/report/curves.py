"""Which charts a report has: how the candidates of a search did over its steps, and what a fit logged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ipo.prompt import METRIC_WORDS
from ipo.report.candidates import cut
from ipo.report.charts import Chart, make_chart, stepped
from ipo.search.history import History

_MOST_OF_A_LABEL = 120


def history_charts(history: History, best: int | None = None) -> list[Chart]:
    """Training accuracy, or another metric, and loss of every scored candidate over steps, and the best so far.

    `best` is the id of the candidate that stands out.
    """
    scored = history.scored()
    if not scored:
        return []
    word = METRIC_WORDS[scored[0].score.metric if scored[0].score else "accuracy"]
    unit = "entropy" if word == METRIC_WORDS["confidence"] else "cross-entropy"
    last = max(entry.step for entry in history)
    values = [(e.step, 100 * e.score.value, e.text, e.id == best) for e in scored if e.score]
    loss = [(e.step, e.score.loss, e.text, e.id == best) for e in scored if e.score]
    charts = [
        make_chart(
            (f"Training {word} of every candidate", "step", f"{word}, %"),
            [(step, value, f"step {step}: {_short(text)}  {value:.1f}%", hot) for step, value, text, hot in values],
            [("best so far", stepped(running_best(values, max), last))],
        ),
        make_chart(
            ("Training loss of every candidate", "step", f"{unit}, nats"),
            [(step, value, f"step {step}: {_short(text)}  {value:.4f}", hot) for step, value, text, hot in loss],
            [("best so far", stepped(running_best(loss, min), last))],
        ),
    ]
    return [chart for chart in charts if chart]


def _short(text: str) -> str:
    """A text as a browser shows it when a dot is pointed at."""
    return cut(text, _MOST_OF_A_LABEL)


def running_best(points: Iterable[tuple[int, float, str, bool]], better: Any) -> list[tuple[float, float]]:
    """The best value up to and including each step."""
    best: dict[int, float] = {}
    value = None
    for step, current, _, _ in points:
        value = current if value is None else better(value, current)
        best[step] = value
    return [(float(step), value) for step, value in best.items()]


def curve_charts(rows: list[dict[str, Any]]) -> list[Chart]:
    """One chart for each figure that a fit logged by epoch."""
    numbers = dict.fromkeys(name for row in rows for name, value in row.items() if _is_number(value))
    names = sorted((name for name in numbers if name not in ("epoch", "seconds")), key=lambda name: name == "rate")
    charts: list[Chart] = []
    for name in names:
        points = [(float(row["epoch"]), float(row[name])) for row in rows if _is_number(row.get(name))]
        chart = make_chart((name, "epoch", ""), [], [(name, points)])
        charts += [chart] if chart else []
    return charts


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
