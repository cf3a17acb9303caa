"""Honest probabilities from logits, and from when on an image is rather of none of the classes; both from shots.

A temperature makes logits probabilities: the one with the least cross-entropy on the shots (Guo et al., 2017, arXiv
1706.04599), whose labels are smoothed as Platt did, so that shots which are all right ask for no certainty.

One cut-off for all classes turns away whole classes that CLIP is never sure of. So each class has its own, by
class-conditional conformal prediction (Vovk, 2012): of n shots of a class the one with the k-th lowest probability of
it, k being the whole part of LEVEL x (n + 1). As far as those shots are like the images to come, at most a share LEVEL
of the images of the class falls below. Where there are too few shots of a class for that, those of all classes count
for it. What is caught by it is measured, too: each shot is shown once without its class among the names.

Shape legend: N shots, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ipo.scoring import ImageSet

LEVEL = 0.1
"""Share of the images of a class that may be taken for none of the classes."""

_COLDEST, _HOTTEST = 1e-3, 1e3
"""Bounds of a temperature: beyond them all classes are as likely, or one is certain."""
_HALVINGS = 100


@dataclass(frozen=True)
class Calibration:
    """A temperature, and for each class the least probability with which an image is taken for one of it."""

    temperature: float
    thresholds: tuple[float, ...]
    kept: float
    """Share of the shots (0..1) whose prediction is not below its threshold."""
    caught: float | None
    """The same share of those below it, where the class of each shot is not among the names; None for one class."""


def calibrate(logits: Tensor, images: ImageSet) -> Calibration:
    """What fits logits (N, C) of labelled images, of which there has to be one."""
    logits = logits.detach().double().cpu()
    shares = label_shares(images, logits.shape[1])
    temperature = fit_temperature(logits, shares)
    probabilities = (logits / temperature).softmax(dim=-1)
    limits = class_thresholds(probabilities, shares > 0)
    caught = None
    if bool((shares == 0).any(dim=-1).all()):
        others = (logits / temperature).masked_fill(shares > 0, -torch.inf).softmax(dim=-1)
        caught = 1 - share_above(others, limits)
    return Calibration(temperature, tuple(limits.tolist()), share_above(probabilities, limits), caught)


def label_shares(images: ImageSet, classes: int) -> Tensor:
    """Labels as probabilities (N, C): equal shares where an image has several."""
    targets = images.targets(classes).double()
    return targets / targets.sum(dim=-1, keepdim=True).clamp(min=1)


def fit_temperature(logits: Tensor, shares: Tensor) -> float:
    """The temperature with the least cross-entropy of logits (N, C) under smoothed labels (N, C), all in double.

    Cross-entropy is convex in the inverse of the temperature, so that the root of its slope is found by halving.
    """
    count, classes = logits.shape
    smoothing = 1 / (count + 2)
    wanted = (((1 - smoothing) * shares + smoothing / classes) * logits).sum(dim=-1).mean()
    low, high = torch.tensor([1 / _HOTTEST, 1 / _COLDEST], dtype=torch.double).log().tolist()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        inverse = torch.tensor(middle).double().exp()
        slope = ((inverse * logits).softmax(dim=-1) * logits).sum(dim=-1).mean() - wanted
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(torch.tensor(-low).double().exp())


def class_thresholds(probabilities: Tensor, own: Tensor, level: float = LEVEL) -> Tensor:
    """The threshold (C,) of each class from probabilities (N, C) and the truth values (N, C) of the labels."""
    pooled = conformal_threshold(probabilities[own], level)
    found = []
    for column, labels in zip(probabilities.T, own.T, strict=True):
        enough = level * (int(labels.sum()) + 1) >= 1
        found.append(conformal_threshold(column[labels], level) if enough else pooled)
    return torch.tensor(found, dtype=probabilities.dtype)


def conformal_threshold(values: Tensor, level: float) -> float:
    """The value that at most a share `level` of those like `values` (K,) is below; 0 where K is too small to tell."""
    rank = int(level * (len(values) + 1))
    return float(values.sort().values[rank - 1]) if rank else 0.0


def share_above(probabilities: Tensor, thresholds: Tensor) -> float:
    """Share of the rows (N, C) whose largest probability is not below the threshold (C,) of its class."""
    most, place = probabilities.max(dim=-1)
    return float((most >= thresholds[place]).double().mean())
