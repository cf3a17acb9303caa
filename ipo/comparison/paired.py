"""Paired differences between two methods: what both did on the same test images, resampled.

The interval is over images: it says what other images would have given, with the fits as they are. How much another
fit would have changed stands beside it, as the standard deviation over seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ipo.metrics import harmonic_mean, mean_and_spread

RESAMPLES = 2000
"""Resamplings of the test images for an interval."""

_CHUNK = 1 << 22
"""Weights of images that are held at once."""


class Tested(Protocol):
    """One predictor of one run, as far as it is compared: a `Trial` is one."""

    @property
    def seed(self) -> int:
        """Of the run."""

    @property
    def correct(self) -> Mapping[str, str]:
        """For each test set one character an image: `1` where it was right."""

    @property
    def images(self) -> Mapping[str, tuple[str, ...]]:
        """Paths of those images."""

    @property
    def test_hashes(self) -> Mapping[str, str]:
        """For each test set, a hash of its images, as far as known."""


Pair = tuple[Tested, Tested]
Accuracies = NDArray[np.float64]
"""Accuracies (S, 1 + RESAMPLES) by seed: on the test images as they are, then on each resampling."""


@dataclass(frozen=True)
class Difference:
    """How much better than the reference: mean over seeds, with a 95% paired bootstrap interval over test images."""

    value: float
    low: float
    high: float
    spread: float | None = None
    """Population standard deviation of the difference over seeds; None for one seed."""


def pair_up(group: Sequence[Tested], reference: Sequence[Tested]) -> list[Pair]:
    """The trials of both that have a seed in common."""
    partners = {trial.seed: trial for trial in reference}
    return [(trial, partners[trial.seed]) for trial in group if trial.seed in partners]


def paired_differences(
    group: Sequence[Tested], reference: Sequence[Tested], seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, Difference]:
    """Mean differences over the seeds that both have, with intervals from resampling the test images they share.

    One image has one weight: it is in a resampling equally often for both methods, and for all seeds whose test set
    holds it. Nothing for a test set where the two did not have the same images.
    """
    pairs = pair_up(group, reference)
    splits = [split for split in (pairs[0][0].correct if pairs else ()) if all(_alike(split, pair) for pair in pairs)]
    rng = np.random.default_rng(seed)
    ours, theirs = {}, {}
    for split in splits:
        ours[split], theirs[split] = _resampled(pairs, split, rng, resamples)
    found = {name: _difference(_mean(ours[name]), _mean(theirs[name]), ours[name] - theirs[name]) for name in splits}
    if {"base", "new"} <= set(splits):
        by_seed = _harmonic(ours["base"], ours["new"]) - _harmonic(theirs["base"], theirs["new"])
        means = [_harmonic(_mean(side["base"]), _mean(side["new"])) for side in (ours, theirs)]
        found["H"] = _difference(means[0], means[1], by_seed)
    return found


def _alike(split: str, pair: Pair) -> bool:
    """Whether both were tested on the same images of a test set."""
    ours, theirs = pair
    if split not in ours.correct or split not in theirs.correct:
        return False
    hashes = {trial.test_hashes[split] for trial in pair if split in trial.test_hashes}
    return len(hashes) < 2 and ours.images.get(split) == theirs.images.get(split)


def _resampled(
    pairs: Sequence[Pair], split: str, rng: np.random.Generator, resamples: int
) -> tuple[Accuracies, Accuracies]:
    """Accuracy of both sides on the test images as they are, and on each resampling of all seeds' images together."""
    images = dict.fromkeys(image for ours, _ in pairs for image in ours.images[split])
    places = {image: place for place, image in enumerate(images)}
    parts = [
        np.stack([_accuracies(weights, places, pair, split) for pair in pairs], axis=1)
        for weights in _weights(len(places), rng, resamples)
    ]
    ours, theirs = np.concatenate(parts, axis=2)
    return ours, theirs


def _weights(count: int, rng: np.random.Generator, resamples: int) -> Iterator[NDArray[np.float64]]:
    """How often each of `count` images is taken (R, count): once each, then in each resampling; some rows at a time."""
    yield np.ones((1, count))
    rows = max(1, _CHUNK // count)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        yield rng.multinomial(count, np.full(count, 1 / count), size=size).astype(np.float64)


def _accuracies(weights: NDArray[np.float64], places: dict[str, int], pair: Pair, split: str) -> NDArray[np.float64]:
    """Accuracy of both sides (2, R) where images are weighted; NaN where none of this seed's images was taken."""
    taken = weights[:, [places[image] for image in pair[0].images[split]]]
    right = np.array([[bit == "1" for bit in trial.correct[split]] for trial in pair], dtype=np.float64)
    counts = taken.sum(axis=1)
    return np.where(counts > 0, right @ taken.T / np.maximum(counts, 1), np.nan)


def _mean(accuracies: Accuracies) -> NDArray[np.float64]:
    """Means (1 + R,) over the seeds that have an accuracy; at least one has."""
    means: NDArray[np.float64] = np.nanmean(accuracies, axis=0)
    return means


def _harmonic(base: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.vectorize(harmonic_mean, otypes=[np.float64])(base, new)
    return values


def _difference(ours: NDArray[np.float64], theirs: NDArray[np.float64], by_seed: Accuracies) -> Difference:
    values = ours - theirs
    low, high = np.quantile(values[1:], (0.025, 0.975))
    fits = [float(value) for value in by_seed[:, 0]]
    spread = mean_and_spread(fits)[1] if len(fits) > 1 else None
    return Difference(float(values[0]), float(low), float(high), spread)
