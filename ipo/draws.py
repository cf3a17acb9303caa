"""What chance alone does: classifiers of one kind that differ in what was drawn, and where another lies among them.

Shape legend: P prompts, C classes, N images, D feature width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, quantiles
from typing import Any

import torch
from torch import Tensor

from ipo import metrics
from ipo.clip.base import ClipModel
from ipo.prompt import Prompt
from ipo.scoring import Aggregate, ImageSet, ensemble_classifier, require_finite, text_features
from ipo.task import BaseToNew, BaseToNewResult

_FORTIETHS = 40
"""Quantiles that bound the middle 95%: the first and the last of these."""


@dataclass(frozen=True)
class Draws:
    """Ensembles of prompts that differ in what was drawn; each is given by places in `prompts`."""

    clip: ClipModel
    prompts: tuple[Prompt, ...]
    sets: tuple[tuple[int, ...], ...]
    what: str
    """What was drawn, such as `5 of the 80 prompts`."""
    beside: str = ""
    """The predictor whose place among them is told; empty for none."""
    aggregate: Aggregate = "feature_mean"

    def logits(self, images: ImageSet, classnames: Sequence[str]) -> Iterator[Tensor]:
        """Logits (N, C) of each ensemble; every text is encoded once."""
        features = text_features(self.clip, self.prompts, classnames)  # (P, C, D)
        for chosen in self.sets:
            classifier = ensemble_classifier(features[list(chosen)], self.aggregate)
            yield self.clip.logit_scale * images.features @ classifier.T


def drawn_figures(draws: Draws, protocol: BaseToNew, results: Mapping[str, BaseToNewResult]) -> dict[str, Any]:
    """The entry of some draws in `result.json`: accuracy, or mean average precision, on every test set, and H, if any.

    Among `results` is that of the predictor whose place is told.
    """
    reached = results[draws.beside].values() if draws.beside else {}
    sets = {name: _values(draws, part.images, part.classnames) for name, part in protocol.test_sets().items()}
    if "new" in sets:
        sets["H"] = [metrics.harmonic_mean(*pair) for pair in zip(sets["base"], sets["new"], strict=True)]
    figures = {name: summary(values, reached.get(name)) for name, values in sets.items()}
    return {"what": draws.what, "beside": draws.beside, "sets": figures}


def summary(values: Sequence[float], reached: float | None) -> dict[str, Any]:
    """Values of draws with their mean, the ends of their middle 95%, and the percentile of what was `reached`."""
    ends = quantiles(values, n=_FORTIETHS, method="inclusive") if len(values) > 1 else list(values)
    place = None if reached is None else percentile(values, reached)
    figures = {"mean": fmean(values), "low": ends[0], "high": ends[-1], "percentile": place}
    return {"values": list(values), **figures}


def percentile(values: Sequence[float], reached: float) -> float:
    """Percent of the draws that did worse than `reached`; those that did the same count half."""
    below = sum(value < reached for value in values)
    same = sum(value == reached for value in values)
    return 100 * (below + same / 2) / len(values)


def _values(draws: Draws, images: ImageSet, classnames: Sequence[str]) -> list[float]:
    found = []
    with torch.no_grad():
        for logits in draws.logits(images.unlabelled(), classnames):
            require_finite(logits, images, draws.what)
            found.append(_value(logits, images))
    return found


def _value(logits: Tensor, images: ImageSet) -> float:
    """Accuracy, or mean average precision over the classes that some image has."""
    if images.metric == "accuracy":
        return metrics.accuracy(logits, images.labels)
    targets = images.targets(logits.shape[-1]).numpy()
    each = metrics.average_precisions(logits.cpu().double().numpy(), targets)
    found = [one for one in each if one is not None]
    return sum(found) / len(found)
