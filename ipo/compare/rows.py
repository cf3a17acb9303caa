"""Runs of any method side by side: means over seeds, averages over datasets, paired differences, published figures.

Accuracies are fractions in 0..1. H is always that of the averaged base and new accuracies, as the papers have it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipo.compare.trials import Trial, name_methods, name_places
from ipo.errors import RunError, UnknownName
from ipo.metrics import harmonic_mean, mean_and_spread

AVERAGE = "average"
"""What the rows over all datasets have in the place of a dataset."""

RESAMPLES = 2000
"""Resamplings of the test images for an interval."""

PUBLISHED_FILE = Path(__file__).with_name("published.toml")

Mean = tuple[float, float | None]
"""Mean and population standard deviation over seeds; no deviation where there is one seed, or an average."""


@dataclass(frozen=True)
class Difference:
    """How much better than the reference, with a 95% paired bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a method on a dataset, or on average over all of them."""

    method: str
    dataset: str
    base: Mean
    new: Mean | None
    seeds: tuple[int, ...] = ()
    targets: dict[str, Mean] = field(default_factory=dict)
    differences: dict[str, Difference] = field(default_factory=dict)
    """By `base`, `new`, `H` and target; empty for the reference itself, and where it was tested on other images."""
    paired: tuple[int, ...] = ()
    """The seeds that the differences are over: those that the reference has too."""
    seconds: float | None = None
    cost: float | None = None
    sentences: tuple[str, ...] = ()
    """What its first run says: its prompts, or the words nearest to its context."""
    source: str = ""
    """Where a published figure stands; empty for what was measured."""

    @property
    def harmonic_mean(self) -> float | None:
        """H of the mean base and the mean new accuracy."""
        return harmonic_mean(self.base[0], self.new[0]) if self.new else None


def compare(trials: Sequence[Trial], reference: str | None = None) -> list[Row]:
    """A row for each dataset and method in order of appearance, then averages where there are several datasets.

    Accuracy among base classes and accuracy among all of them are never averaged.
    Differences are from the method `reference`; see `choose_reference`.
    """
    chosen = choose_reference(trials, reference)
    groups = _group(trials)
    methods = list(dict.fromkeys(method for _, method in groups))
    datasets = list(dict.fromkeys(dataset for dataset, _ in groups))
    rows = [
        _row(method, dataset, group, [] if method == chosen else groups.get((dataset, chosen), []))
        for dataset in datasets
        for (place, method), group in groups.items()
        if place == dataset
    ]
    comparable = len({trial.facts["classes"] for trial in trials}) == 1
    return rows + (_averages(rows, methods, datasets) if comparable else [])


def choose_reference(trials: Sequence[Trial], wanted: str | None = None) -> str:
    """The method that differences are from: the one that is wanted, or else zero-shot, or else the first."""
    methods = list(dict.fromkeys(name_methods(trials)))
    if not methods:
        raise RunError("no runs to compare", remedy="Give the folders of finished runs")
    if wanted is not None and wanted not in methods:
        raise UnknownName("method", wanted, methods)
    return wanted or next((method for method in methods if method.startswith("zero-shot")), methods[0])


def _group(trials: Sequence[Trial]) -> dict[tuple[str, str], list[Trial]]:
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial, method, place in zip(trials, name_methods(trials), name_places(trials), strict=True):
        group = groups.setdefault((place, method), [])
        if any(other.seed == trial.seed for other in group):
            raise RunError(f"two runs of {method} on {place} have seed {trial.seed}", remedy="Give one of them only")
        group.append(trial)
    return groups


def _row(method: str, dataset: str, group: Sequence[Trial], reference: Sequence[Trial]) -> Row:
    differences = paired_differences(group, reference)
    news = [trial.new for trial in group if trial.new is not None]
    specs = dict.fromkeys(spec for trial in group for spec in trial.targets)
    costs = [trial.cost for trial in group if trial.cost is not None]
    return Row(
        method=method,
        dataset=dataset,
        base=_over_seeds([trial.base for trial in group]),
        new=_over_seeds(news) if len(news) == len(group) else None,
        seeds=tuple(trial.seed for trial in group),
        targets={spec: _over_seeds([t.targets[spec] for t in group if spec in t.targets]) for spec in specs},
        differences=differences,
        paired=tuple(ours.seed for ours, _ in _pairs(group, reference)) if differences else (),
        seconds=_mean([trial.seconds for trial in group]),
        cost=_mean(costs) if costs else None,
        sentences=group[0].sentences,
    )


def _averages(rows: Sequence[Row], methods: Sequence[str], datasets: Sequence[str]) -> list[Row]:
    """For each method that was run on all datasets, the mean over them; nothing for a single dataset."""
    averages = []
    for method in methods if len(datasets) > 1 else ():
        own = [row for row in rows if row.method == method]
        if len(own) == len(datasets):
            news = [row.new[0] for row in own if row.new]
            new = (_mean(news), None) if len(news) == len(own) else None
            seeds = tuple(sorted({seed for row in own for seed in row.seeds}))
            averages.append(Row(method, AVERAGE, (_mean([row.base[0] for row in own]), None), new, seeds))
    return averages


def _over_seeds(values: Sequence[float]) -> Mean:
    return mean_and_spread(values) if len(values) > 1 else (values[0], None)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def paired_differences(group: Sequence[Trial], reference: Sequence[Trial], seed: int = 0) -> dict[str, Difference]:
    """Mean differences over the seeds that both have, with intervals from resampling the test images they share.

    An image is in a resampling equally often for both methods, and for all seeds that were tested on it. Nothing for a
    test set where the two did not have the same images.
    """
    pairs = _pairs(group, reference)
    splits = [split for split in (pairs[0][0].correct if pairs else ()) if all(_alike(split, *pair) for pair in pairs)]
    rng = np.random.default_rng(seed)
    ours, theirs = {}, {}
    for split in splits:
        ours[split], theirs[split] = _resampled_accuracies(pairs, split, rng)
    if {"base", "new"} <= set(splits):
        ours["H"], theirs["H"] = (
            2 * s["base"] * s["new"] / np.maximum(s["base"] + s["new"], 1e-12) for s in (ours, theirs)
        )
    return {name: _difference(ours[name] - theirs[name]) for name in ours}


def _pairs(group: Sequence[Trial], reference: Sequence[Trial]) -> list[tuple[Trial, Trial]]:
    partners = {trial.seed: trial for trial in reference}
    return [(trial, partners[trial.seed]) for trial in group if trial.seed in partners]


def _alike(split: str, ours: Trial, theirs: Trial) -> bool:
    """Whether both were tested on the same images of a test set."""
    tested = split in ours.correct and split in theirs.correct
    return tested and ours.images.get(split) == theirs.images.get(split)


def _resampled_accuracies(
    pairs: Sequence[tuple[Trial, Trial]], split: str, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean accuracy over seeds of both sides on the test images (first) and on each resampling (RESAMPLES)."""
    shares: dict[tuple[str, ...], NDArray[np.float64]] = {}
    sums = np.zeros((2, RESAMPLES + 1))
    for pair in pairs:
        images = pair[0].images[split]
        if images not in shares:
            count = len(images)
            drawn = rng.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
            shares[images] = np.vstack([np.ones(count), drawn]) / count
        sums += [shares[images] @ _bits(trial.correct[split]) for trial in pair]
    ours, theirs = sums / len(pairs)
    return ours, theirs


def _bits(correct: str) -> NDArray[np.float64]:
    return np.array([bit == "1" for bit in correct], dtype=np.float64)


def _difference(values: NDArray[np.float64]) -> Difference:
    low, high = np.quantile(values[1:], (0.025, 0.975))
    return Difference(float(values[0]), float(low), float(high))


def published_rows(datasets: Sequence[str], shots: Sequence[int]) -> list[Row]:
    """The published figures for some datasets and numbers of shots; averages only where all the datasets are there."""
    tables: list[dict[str, Any]] = tomllib.loads(PUBLISHED_FILE.read_text(encoding="utf-8"))["table"]
    wanted = [table for table in tables if table["shots"] in (0, *shots)]
    return [row for table in wanted for row in _published(table, list(dict.fromkeys(datasets)))]


def _published(table: dict[str, Any], datasets: list[str]) -> Iterator[Row]:
    source = f"{table['source']}; {table['model']}"
    for method, figures in table["methods"].items():
        name = f"{method} ({table['shots']}-shot)" if table["shots"] else method
        whole = set(figures) - {AVERAGE} == set(datasets) - {AVERAGE}
        for place in [dataset for dataset in datasets if dataset in figures and dataset != AVERAGE] + [AVERAGE] * whole:
            base, new = (value / 100 for value in figures[place])
            yield Row(name, place, (base, None), (new, None), source=source)
