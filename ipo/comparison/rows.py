"""Runs of any method side by side: means over seeds, averages over datasets, paired differences, published figures.

Accuracies are fractions in 0..1. H is always that of the averaged base and new accuracies, as the papers have it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipo.comparison.names import AVERAGE, name_methods, name_places
from ipo.comparison.paired import Difference, pair_up, paired_differences
from ipo.comparison.trials import CONTROL_FACTS, Trial
from ipo.config import MetricName
from ipo.data.uses import Use, in_order
from ipo.errors import RunError, UnknownName
from ipo.metrics import harmonic_mean, mean_and_spread
from ipo.screen import printable

PUBLISHED_FILE = Path(__file__).with_name("published.toml")

Mean = tuple[float, float | None]
"""Mean and population standard deviation over seeds; no deviation where there is one seed, or an average."""


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a method on a dataset, or on average over all of them."""

    method: str
    dataset: str
    base: Mean
    """Among the classes of the fit; those are all of them where `classes` is `all`."""
    new: Mean | None
    classes: str = "base"
    metric: MetricName = "accuracy"
    seeds: tuple[int, ...] = ()
    targets: dict[str, Mean] = field(default_factory=dict)
    partly: tuple[str, ...] = ()
    """Targets that only some of its runs were tested on."""
    differences: dict[str, Difference] = field(default_factory=dict)
    """By `base`, `new`, `H` and target; empty for the reference itself, and where it was tested on other images."""
    paired: tuple[int, ...] = ()
    """The seeds that the differences are over: those that the reference has too."""
    uses: tuple[Use, ...] | None = None
    """What any of its runs saw; None where nobody declared it for all of them."""
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

    Accuracy among base classes and accuracy among all of them are never averaged, nor either with another metric.
    Differences are from the method `reference`; see `choose_reference`.
    """
    chosen = choose_reference(trials, reference)
    groups = _group(trials)
    methods = list(dict.fromkeys(method for _, method in groups))
    datasets = list(dict.fromkeys(dataset for dataset, _ in groups))
    rows = []
    for dataset in datasets:
        references = groups.get((dataset, chosen), [])
        for (place, method), group in groups.items():
            if place == dataset:
                rows.append(_row(method, dataset, group, [] if method == chosen else references))
    kinds = {(trial.facts["classes"], trial.facts.get("metric")) for trial in trials}
    if len(datasets) > 1 and len(kinds) == 1:
        rows += _averages(rows, methods, len(datasets))
    return rows


def choose_reference(trials: Sequence[Trial], wanted: str | None = None) -> str:
    """The method that differences are from: the one that is wanted, or else zero-shot, or else the first."""
    methods = list(dict.fromkeys(label.name for label in name_methods(trials)))
    if not methods:
        raise RunError("no runs to compare", remedy="Give the folders of finished runs")
    if wanted is None:
        return next((method for method in methods if method.startswith("zero-shot")), methods[0])
    chosen = next((method for method in methods if wanted == method or wanted in method.split(" = ")), None)
    if chosen is None:
        raise UnknownName("method", wanted, methods)
    return chosen


def _group(trials: Sequence[Trial]) -> dict[tuple[str, str], list[Trial]]:
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial, label, place in zip(trials, name_methods(trials), name_places(trials), strict=True):
        group = groups.setdefault((place, label.name), [])
        twin = next((other for other in group if other.seed == trial.seed), None)
        if twin is None:
            group.append(trial)
        elif not _same_control(twin, trial):
            where = " and ".join(filter(None, (twin.folder, trial.folder)))
            what = f"two runs of {label.name} on {place} have seed {trial.seed}"
            raise RunError(what, where=where, remedy="Give one of them only")
    return groups


def _same_control(one: Trial, other: Trial) -> bool:
    """Whether these are one yardstick that stands beside two searches, with the same result in both."""
    alike = (one.correct, one.images) == (other.correct, other.images)
    return alike and any(part in CONTROL_FACTS for part in one.predictor.split(" = "))


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
        classes=group[0].facts["classes"],
        metric=group[0].facts.get("metric", "accuracy"),
        seeds=tuple(trial.seed for trial in group),
        targets={spec: _over_seeds([t.targets[spec] for t in group if spec in t.targets]) for spec in specs},
        partly=tuple(spec for spec in specs if any(spec not in trial.targets for trial in group)),
        differences=differences,
        paired=tuple(ours.seed for ours, _ in pair_up(group, reference)) if differences else (),
        uses=_united([trial.uses for trial in group]),
        seconds=_mean([trial.seconds for trial in group]),
        cost=_mean(costs) if costs else None,
        sentences=tuple(printable(sentence) for sentence in group[0].sentences),
    )


def _averages(rows: Sequence[Row], methods: Sequence[str], datasets: int) -> list[Row]:
    """For each method that was run on all of so many datasets, the mean over them."""
    by_method = [[row for row in rows if row.method == method] for method in methods]
    return [_average(own) for own in by_method if len(own) == datasets]


def _average(rows: Sequence[Row]) -> Row:
    """The mean over the datasets of one method; of new classes, where all the datasets have some."""
    news = [row.new[0] for row in rows if row.new is not None]
    return Row(
        method=rows[0].method,
        dataset=AVERAGE,
        base=(_mean([row.base[0] for row in rows]), None),
        new=(_mean(news), None) if len(news) == len(rows) else None,
        classes=rows[0].classes,
        metric=rows[0].metric,
        seeds=tuple(sorted({seed for row in rows for seed in row.seeds})),
        uses=_united([row.uses for row in rows]),
    )


def _united(parts: Sequence[tuple[Use, ...] | None]) -> tuple[Use, ...] | None:
    known = [part for part in parts if part is not None]
    return tuple(in_order(use for part in known for use in part)) if len(known) == len(parts) else None


def _over_seeds(values: Sequence[float]) -> Mean:
    return mean_and_spread(values) if len(values) > 1 else (values[0], None)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def catalogue_places(trials: Sequence[Trial]) -> list[str]:
    """Names of the datasets that published figures are about: those of the catalogue, fitted on base classes."""
    pairs = zip(trials, name_places(trials), strict=True)
    found = dict.fromkeys(
        place for trial, place in pairs if trial.data.spec in ("", place) and trial.facts["classes"] == "base"
    )
    return list(found)


def published_rows(datasets: Sequence[str], shots: Sequence[int]) -> list[Row]:
    """The published figures for some datasets and numbers of shots; averages only where all the datasets are there."""
    tables: list[dict[str, Any]] = tomllib.loads(PUBLISHED_FILE.read_text(encoding="utf-8"))["table"]
    wanted = [table for table in tables if table["shots"] in (0, *shots)]
    return [row for table in wanted for row in _published(table, set(datasets) - {AVERAGE})]


def _published(table: dict[str, Any], datasets: set[str]) -> Iterator[Row]:
    source = f"{table['source']}; {table['model']}"
    for method, figures in table["methods"].items():
        name = f"{method} ({table['shots']}-shot)" if table["shots"] else method
        places = [place for place in figures if place in datasets]
        if figures.keys() - {AVERAGE} == datasets:
            places.append(AVERAGE)
        for place in places:
            base, new = figures[place]
            yield Row(name, place, (base / 100, None), (new / 100, None), source=source)
