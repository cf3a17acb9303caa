"""Figures from logits and labels: tensors in, numbers out. Accuracies are fractions in 0..1.

Shape legend: N images, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ipo.errors import DataError

if TYPE_CHECKING:  # torch takes seconds to import, and figures that are no tensors' need none
    from torch import Tensor

    from ipo.config import LabelFreeRule

Z95 = 1.959963984540054
"""Two-sided 95% quantile of the normal distribution."""


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of images (N, C) whose largest logit is at their label (N,): micro top-1, as in CoOp.

    Raises `DataError` where there are no images: a share of nothing is no number.
    """
    if not len(labels):
        raise DataError("there are no images to take an accuracy over", remedy="See: ipo datasets check NAME")
    return count_right(logits, labels) / len(labels)


def count_right(logits: Tensor, labels: Tensor) -> int:
    """How many images (N, C) have their largest logit at their label (N,)."""
    return int((logits.argmax(dim=-1) == labels).sum())


def cross_entropy(logits: Tensor, labels: Tensor) -> float:
    """Mean cross-entropy in nats over all images, in double precision."""
    from torch.nn.functional import cross_entropy as mean_cross_entropy

    return float(mean_cross_entropy(logits.double(), labels))


def margin(logits: Tensor, labels: Tensor) -> float:
    """Mean of the true class's logit minus the best other one; 0 where there is only one class."""
    if logits.shape[-1] < 2:
        return 0.0
    logits = logits.double()
    own = logits.gather(1, labels[:, None]).squeeze(1)
    rest = logits.scatter(1, labels[:, None], -math.inf).amax(dim=1)
    return float((own - rest).mean())


def top_logit_of_classes(logits: Tensor) -> Tensor:
    """For each class (C,) the mean of the largest logits of the images (N, C) that are put into it; 0 for none.

    It knows no labels; CARPRT weighs prompts by it. In double precision.
    """
    top, taken = logits.double().max(dim=-1)
    zeros = top.new_zeros(logits.shape[-1])
    counts = zeros.scatter_add(0, taken, top.new_ones(len(top)))
    return zeros.scatter_add(0, taken, top) / counts.clamp(min=1)


def centred_top_logit(logits: Tensor) -> Tensor:
    """The mean (1,) over images (N, C) of the largest logit after the mean over the images is taken from each class.

    It knows no labels; ZPE weighs prompts by it. It is 0 where all images are alike, else more. In double precision.
    """
    logits = logits.double()
    return (logits - logits.mean(dim=0)).amax(dim=-1).mean(dim=0, keepdim=True)


def mean_entropy(logits: Tensor) -> float:
    """Mean entropy in nats of the class probabilities of images (N, C), in double precision."""
    logs = logits.double().log_softmax(dim=-1)
    return float(-(logs.exp() * logs).sum(dim=-1).mean())


def confidence(rule: LabelFreeRule, logits: Tensor) -> tuple[float, float]:
    """How clearly images (N, C) fall into classes, and the standard error of that over the images.

    For `carprt` the mean of `top_logit_of_classes`, for `zpe` that of `centred_top_logit`. The error takes the class of
    each image, and the means over the images, as they are.
    """
    logits = logits.double()
    top, taken = logits.max(dim=-1)
    if rule == "zpe":
        values = (logits - logits.mean(dim=0)).amax(dim=-1)
        return float(centred_top_logit(logits)), float(values.std(correction=0)) / math.sqrt(len(values))
    means = top_logit_of_classes(logits)
    counts = taken.bincount(minlength=logits.shape[-1])
    each = (top - means[taken]) / counts[taken] / logits.shape[-1]
    return float(means.mean()), float(each.pow(2).sum().sqrt())


def within_folds(logits: Tensor, labels: Tensor, folds: int = 5) -> Tensor:
    """Logits (N, C) where each image competes only among the classes of its fold (class index modulo `folds`).

    They are in double precision; those of the other classes are minus infinity.

    Every fold is a smaller task with other rivals; a prompt that is good at all of them leans less on one set of
    classes. Folds have at least two classes: few classes mean fewer folds.
    """
    import torch

    classes = logits.shape[-1]
    folds = max(1, min(folds, classes // 2))
    fold_of = torch.arange(classes, device=logits.device) % folds
    outside = fold_of[None, :] != fold_of[labels][:, None]
    return logits.double().masked_fill(outside, -math.inf)


def per_class_recall(logits: Tensor, labels: Tensor) -> list[float | None]:
    """For each class the share of its images that are recognised; None for a class without images."""
    hits = logits.argmax(dim=-1) == labels
    recalls: list[float | None] = []
    for label in range(logits.shape[-1]):
        own = hits[labels == label]
        recalls.append(float(own.double().mean()) if own.numel() else None)
    return recalls


def shared_cross_entropy(logits: Tensor, targets: Tensor) -> float:
    """Mean cross-entropy in nats of images (N, C) whose labels (N, C), truth values, have an equal share each.

    Of images with one label it is `cross_entropy`.
    """
    shares = targets.double() / targets.sum(dim=-1, keepdim=True)
    return float(-(shares * logits.double().log_softmax(dim=-1)).sum(dim=-1).mean())


RESAMPLES = 200
"""Resamplings of the images for the standard error of a mean average precision."""
_WEIGHTS = 1 << 21
"""Weights of images that are held at once."""
Floats = NDArray[np.float64]


def average_precision(scores: Floats, targets: NDArray[np.bool_], weights: Floats) -> Floats:
    """Average precision (R,) of one class, from scores (N,), truth values (N,) and weights (R, N) of the images.

    The sum over different scores, from the highest on, of precision times what recall gains: images with equal scores
    count together, as in scikit-learn's `average_precision_score`. NaN where no image of the class has a weight.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    taken = weights[:, order]
    seen = np.cumsum(taken, axis=1)[:, ends]
    found = np.cumsum(taken * targets[order], axis=1)[:, ends]
    gains = np.diff(found, axis=1, prepend=0.0)
    precision = found / np.maximum(seen, 1.0)
    total = found[:, -1]
    with np.errstate(invalid="ignore"):
        values: Floats = (precision * gains).sum(axis=1) / total
    return values


def average_precisions(scores: Floats, targets: NDArray[np.bool_]) -> list[float | None]:
    """Average precision of each class, from scores and truth values (N, C); None for a class that no image has."""
    once = np.ones((1, len(scores)))
    found = [float(average_precision(scores[:, c], targets[:, c], once)[0]) for c in range(scores.shape[1])]
    return [None if math.isnan(value) else value for value in found]


def resampled_map(scores: Floats, targets: NDArray[np.bool_], resamples: int = RESAMPLES) -> Floats:
    """Mean average precision (R,) on so many resamplings of the images (N, C), drawn with replacement.

    Classes that a resampling has no image of are left out of its mean. The resamplings depend on N alone, so that those
    of two classifiers on the same images are pairs.
    """
    kept = targets.any(axis=0)
    scores, targets = scores[:, kept], targets[:, kept]
    means = []
    for weights in _resampled_weights(len(scores), resamples):
        values = [average_precision(scores[:, c], targets[:, c], weights) for c in range(scores.shape[1])]
        means.append(np.nanmean(np.stack(values), axis=0))
    return np.concatenate(means)


def _resampled_weights(count: int, resamples: int) -> Iterator[Floats]:
    """How often each of `count` images is taken (R, count), some resamplings at a time."""
    rng = np.random.default_rng(0)
    rows = max(1, _WEIGHTS // count)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        yield rng.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)


@dataclass(frozen=True)
class MeanAveragePrecision:
    """The mean over the classes that images have, with its 95% interval by the standard error over resamplings."""

    value: float
    low: float
    high: float
    per_class: tuple[float | None, ...]
    """None for a class that no image has: it is left out of the mean."""
    resampled: tuple[float, ...]


def mean_average_precision(scores: Floats, targets: NDArray[np.bool_]) -> MeanAveragePrecision:
    """Of scores and truth values (N, C) of images that have one label each at least."""
    per_class = average_precisions(scores, targets)
    found = [one for one in per_class if one is not None]
    value, resampled = sum(found) / len(found), resampled_map(scores, targets)
    error = Z95 * float(resampled.std())
    ends = max(0.0, value - error), min(1.0, value + error)
    return MeanAveragePrecision(value, *ends, tuple(per_class), tuple(map(float, resampled)))


def harmonic_mean(base: float, new: float) -> float:
    """H = 2 b n / (b + n) of base and new accuracy; 0 where both are 0."""
    return 2 * base * new / (base + new) if base + new else 0.0


Interval = tuple[float, float, float]
"""A share with the lower and upper end of its 95% interval."""


def harmonic_interval(base: Interval, new: Interval) -> tuple[float, float]:
    """95% interval of H from those of independent base and new accuracies (MOVER, Zou and Donner 2008, for 2bn/(b+n)).

    To first order H moves by 2n^2/(b+n)^2 for each unit of b, and likewise for n.
    """
    (b, b_low, b_high), (n, n_low, n_high) = base, new
    if b + n == 0:
        return 0.0, harmonic_mean(b_high, n_high)
    h, by_base, by_new = harmonic_mean(b, n), 2 * (n / (b + n)) ** 2, 2 * (b / (b + n)) ** 2
    low = h - math.hypot(by_base * (b - b_low), by_new * (n - n_low))
    high = h + math.hypot(by_base * (b_high - b), by_new * (n_high - n))
    return max(0.0, low), min(1.0, high)


def wilson_interval(share: float, count: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a share seen in `count` trials; (0, 1) without trials."""
    if count == 0:
        return 0.0, 1.0
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    total = 1 + z * z / count
    return max(0.0, (centre - spread) / total), min(1.0, (centre + spread) / total)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and population standard deviation over seeds, as the papers report it."""
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
