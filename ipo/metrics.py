"""Figures from logits and labels: tensors in, numbers out. Accuracies are fractions in 0..1.

Shape legend: N images, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ipo.errors import DataError

if TYPE_CHECKING:  # torch takes seconds to import, and figures that are no tensors' need none
    from torch import Tensor

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
