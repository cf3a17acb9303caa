"""How each class fares before and after, and which are taken for which."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ipo.report.bars import Bars, change_bars
from ipo.runs.predictions import Predictions
from ipo.runs.result import Result

_ALL = 24
"""Most classes that are shown at once; of more only the largest changes, and the rest behind a click."""
_ENDS = 8
_CONFUSIONS = 10


@dataclass(frozen=True)
class Recall:
    """The share of its test images that a class is recognised on, before and after."""

    name: str
    before: float
    after: float
    test_set: str = ""
    """`base` or `new`, where there are both."""


@dataclass(frozen=True)
class Confusion:
    """How many images of one class are taken for another, after and before."""

    name: str
    taken_for: str
    after: int
    before: int


def recalls(result: Result, predictions: Predictions | None, after: str) -> list[Recall]:
    """Each class with test images, the largest gain first; from `result.json` where predictions are not kept."""
    if predictions is None or not predictions.before:
        rows = [Recall(gain.name, gain.first, gain.best) for gain in result.per_class_gain]
        return sorted(rows, key=lambda row: (row.before - row.after, row.name))
    found, sets = [], [name for name in ("base", "new") if name in predictions.predicted.get(after, {})]
    for test_set in sets:
        was, now = (_by_class(predictions, name, test_set) for name in (predictions.before, after))
        told = test_set if len(sets) > 1 else ""
        found += [Recall(name, was[name], now[name], told) for name in was]
    return sorted(found, key=lambda row: (row.before - row.after, row.test_set, row.name))


def _by_class(predictions: Predictions, predictor: str, test_set: str) -> dict[str, float]:
    own, hits = predictions.sets[test_set], predictions.correct(predictor, test_set)
    total = Counter(own.labels)
    right = Counter(label for label, hit in zip(own.labels, hits, strict=True) if hit)
    return {own.classnames[label]: right[label] / total[label] for label in sorted(total)}


def recall_bars(rows: list[Recall]) -> tuple[Bars, Bars | None]:
    """The classes to show at once, and all of them where those are not all."""
    bars = [
        (f"{row.name} ({row.test_set})" if row.test_set == "new" else row.name, row.before, row.after) for row in rows
    ]
    if len(bars) <= _ALL:
        return change_bars(bars), None
    return change_bars(bars[:_ENDS] + bars[-_ENDS:]), change_bars(bars)


def confusions(predictions: Predictions | None, after: str) -> list[Confusion]:
    """The pairs of classes that are confused most after the fit, within each test set of the dataset itself."""
    found: list[Confusion] = []
    for test_set in ("base", "new"):
        if predictions and test_set in predictions.predicted.get(after, {}):
            own = predictions.sets[test_set]
            before = predictions.predicted.get(predictions.before, {}).get(test_set, [])
            was = Counter(zip(own.labels, before, strict=False))
            for (label, taken), count in Counter(
                zip(own.labels, predictions.predicted[after][test_set], strict=True)
            ).items():
                if label != taken:
                    names = own.classnames[label], own.classnames[taken]
                    found.append(Confusion(*names, count, was[label, taken]))
    return sorted(found, key=lambda one: (-one.after, one.name, one.taken_for))[:_CONFUSIONS]
