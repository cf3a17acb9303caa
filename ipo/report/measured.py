"""What the predictor that stands for a method is better by than the others of its run, on the same test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ipo.comparison.paired import paired_differences
from ipo.comparison.verdict import Answers
from ipo.metrics import harmonic_interval, harmonic_mean
from ipo.prompt import text_key
from ipo.runs.predictions import Predictions
from ipo.runs.result import CORRECT_FILE, Predictor, Result
from ipo.runs.verdicts import read_verdicts
from ipo.screen import counted

OTHERS: Mapping[str, str] = {
    "hand-crafted": "the hand-crafted prompt",
    "select-80": "the best of 80 hand-made prompts, chosen on the same images",
    "ensemble-80": "the mean of 80 hand-made prompts",
    "carprt": "80 hand-made prompts, weighed for each class by images without labels",
    "zpe": "80 hand-made prompts, weighed by images without labels",
}
"""What a method is measured against, in this order, and what sentences call it."""


@dataclass(frozen=True)
class Measured:
    """A difference to another predictor in points, with its 95% interval."""

    other: str
    """As sentences call it."""
    where: str
    value: float
    low: float
    high: float

    @property
    def kind(self) -> str:
        """`up`, `down`, or `flat` where chance explains it."""
        return "flat" if self.low <= 0 <= self.high else "up" if self.value > 0 else "down"

    @property
    def words(self) -> str:
        """`No different from`, before the name of the other."""
        return {"up": "Better than", "down": "Worse than", "flat": "No different from"}[self.kind]


def with_hand_crafted(result: Result, predictions: Predictions | None) -> Result:
    """The result with a row for the hand-crafted prompt, where the run kept what that predicts."""
    if predictions is None or not predictions.before or predictions.before in result.predictors:
        return result
    before = predictions.before
    figures = {name: predictions.figures(before, name) for name in predictions.predicted[before]}
    base, new = figures.pop("base"), figures.pop("new", None)
    both = [(one.value, one.low, one.high) for one in (base, new) if one]
    row = Predictor(
        base=base,
        new=new,
        H=harmonic_mean(both[0][0], both[1][0]) if new else None,
        H_interval=list(harmonic_interval(both[0], both[1])) if new else None,
        targets=figures,
        prompts=[predictions.before_prompt],
    )
    return result.model_copy(update={"predictors": {before: row, **result.predictors}})


def measure(folder: Path, result: Result, predictions: Predictions | None) -> list[Measured]:
    """The differences to the plain prompt and the controls, where the run has them; nothing for runs of old versions.

    They are in H where there are base and new classes, else in accuracy.
    """
    headline = result.headline
    if not headline or result.metric == "map" or not (folder / CORRECT_FILE).exists():
        return []
    images, verdicts = read_verdicts(folder, result)
    if predictions and predictions.before and predictions.before not in verdicts:
        before = predictions.before
        verdicts |= {before: {name: _bits(predictions, name) for name in predictions.predicted[before]}}
    own, found = _key(result, headline), list[Measured]()
    for name, other in OTHERS.items():
        if name == headline or name not in verdicts or (own and own == _key(result, name)):
            continue
        ours, theirs = (Answers(result.seed, verdicts[one], images, {}) for one in (headline, name))
        differences = paired_differences([ours], [theirs])
        if main := next((split for split in ("H", "base") if split in differences), None):
            one = differences[main]
            found.append(Measured(other, _where(result, main), 100 * one.value, 100 * one.low, 100 * one.high))
    return found


def _bits(predictions: Predictions, test_set: str) -> str:
    return "".join("01"[hit] for hit in predictions.correct(predictions.before, test_set))


def _key(result: Result, name: str) -> list[str]:
    """What the prompts of a predictor say; nothing where it is not made of prompts."""
    predictor = result.predictors.get(name)
    return [text_key(text) for text in (predictor and predictor.prompts) or ()]


def _where(result: Result, split: str) -> str:
    base = result.predictors[result.headline].base.n
    return counted(base, "test image") if split == "base" else "the test images of base and new classes (H)"
