"""Finished runs read back for comparison: one trial for each predictor of each run."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ipo.data.uses import Use
from ipo.errors import RunError
from ipo.registry import SEARCH
from ipo.runs.path import CONFIG_FILE
from ipo.runs.result import Predictor, Result, read_result
from ipo.runs.verdicts import read_verdicts

CONTROL_FACTS = {
    "photo": (),
    "first": ("search.first_prompts",),
    "hand-crafted": (),
    "select-80": (),
    "ensemble-80": (),
    "carprt": (),
    "zpe": (),
    "waffle": (),
}
"""The controls beside other methods, and the settings of a search that they depend on."""

ENSEMBLE = "-ensemble"
"""How the name of the ensemble ends that a search found beside its best prompt."""

_SEARCH_SECTIONS = ("llm", "captions", "search", "strategy")
_DRAWN = re.compile(r"seeded( test)? \(\d+\)$")
"""How the source of a split ends that each seed draws anew."""


@dataclass(frozen=True)
class Data:
    """What tells one dataset from another of the same name."""

    spec: str = ""
    """How the settings name it: a name of the catalogue, or `folder:PATH`."""
    content: str = ""
    """Hash of all its images and class names; runs of earlier versions have none."""
    split: str = ""
    """Hash of its split; empty where each seed draws a split of its own."""


@dataclass(frozen=True)
class Trial:
    """One predictor of one run: a method at one seed on one dataset."""

    predictor: str
    dataset: str
    """Its name, with the domains of the fit where it was fitted on some of them: `pacs@photo`."""
    seed: int
    facts: dict[str, Any]
    """Shots, classes, model, and the options that the method ran with."""
    base: float
    """Test accuracy on the classes of the fit; mean average precision where `facts` say so under `metric`."""
    new: float | None
    targets: dict[str, float]
    """Accuracy on other test sets."""
    correct: dict[str, str]
    """For `base`, `new` and each target, one character an image: `1` where it was right."""
    images: dict[str, tuple[str, ...]]
    """Paths of those images."""
    seconds: float
    cost: float | None
    sentences: tuple[str, ...]
    """Its prompts, or the vocabulary words nearest to a learned context."""
    data: Data = Data()
    test_hashes: dict[str, str] = field(default_factory=dict)
    """For each test set, a hash of its images; runs of earlier versions have none."""
    folder: str = ""
    version: str = ""
    """Of `ipo`; empty where the run does not tell."""
    uses: tuple[Use, ...] | None = None
    """What it saw beside the names of its classes; None where nobody declared it."""


def read_trials(folder: Path, every: bool = False) -> list[Trial]:
    """The predictors of a finished run: what IPO found, or all of a baseline; `every` adds the controls beside IPO.

    Raises `RunError` where a file of the run is missing or damaged.
    """
    result = read_result(folder)
    images, verdicts = read_verdicts(folder, result)
    settings = read_toml(folder)
    names = list(result.predictors)
    if result.method == SEARCH and not every:
        headline = result.headline or SEARCH  # results of earlier versions do not tell
        names = [name for name in names if name in (headline, headline + ENSEMBLE)]
    return [_trial(folder, result, name, images, verdicts[name], settings) for name in names]


def _trial(
    folder: Path,
    result: Result,
    name: str,
    images: dict[str, tuple[str, ...]],
    verdicts: dict[str, str],
    settings: dict[str, Any],
) -> Trial:
    figures, data = result.predictors[name], _section(settings, "data")
    drawn = bool(_DRAWN.search(result.split_source))
    return Trial(
        predictor=name,
        dataset=with_domains(result.dataset, settings),
        seed=result.seed,
        facts=_facts(result, name, settings),
        base=figures.base.value,
        new=figures.new.value if figures.new else None,
        targets={spec: target.value for spec, target in figures.targets.items()},
        correct=verdicts,
        images={split: paths for split, paths in images.items() if split in verdicts},
        seconds=result.seconds,
        cost=result.cost,
        sentences=tuple(figures.prompts or _nearest_words(result)),
        data=Data(str(data.get("dataset", "")), result.dataset_hash, "" if drawn else result.split_hash),
        test_hashes=result.test_hashes,
        folder=str(folder),
        version=result.ipo,
        uses=_uses(result, figures),
    )


def _uses(result: Result, figures: Predictor) -> tuple[Use, ...] | None:
    own = figures.uses if "uses" in figures.model_fields_set else result.uses
    return None if own is None else tuple(own)


def _facts(result: Result, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What the method ran with: the model and the task, and its options, or all that a search was asked to do."""
    facts: dict[str, Any] = {"shots": result.shots, "classes": result.classes, "model": result.model}
    if result.metric != "accuracy":
        facts["metric"] = result.metric
    if result.clip:
        facts |= {"precision": result.clip.precision, "preprocessing": result.clip.preprocessing}
        facts["weights"] = result.clip.weights[:12]
    if result.options is not None and (name in (result.method, result.headline) or name not in CONTROL_FACTS):
        return facts | result.options
    searching = _searching(settings) | {"llm": _model_of(result.llm), "captioner": _model_of(result.captioner)}
    kept = CONTROL_FACTS.get(name, tuple(searching))
    return facts | {key: searching[key] for key in kept if key in searching}


def _model_of(name: str) -> str:
    """A language model as a run records it, without the libraries and the address that it answered from."""
    return re.split(r", transformers |, llama.cpp | at http", name)[0]


def _nearest_words(result: Result) -> list[str]:
    reading = result.figures.get("reading")
    sentence = reading.get("sentence") if isinstance(reading, dict) else None
    return [sentence] if isinstance(sentence, str) else []


def read_toml(folder: Path) -> dict[str, Any]:
    """The settings of a run as they stand, so that those of other versions can be compared too."""
    try:
        return tomllib.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"cannot read {CONFIG_FILE}: {reason}", where=str(folder)) from error


def with_domains(dataset: str, settings: dict[str, Any]) -> str:
    """A dataset with the domains of the fit where it was on some of them: `pacs@photo`."""
    domains = _section(settings, "data").get("domains")
    named = "+".join(map(str, domains)) if isinstance(domains, list) else ""
    return f"{dataset}@{named}" if named else dataset


def _section(settings: dict[str, Any], name: str) -> dict[str, Any]:
    section = settings.get(name, {})
    return section if isinstance(section, dict) else {}


def _searching(settings: dict[str, Any]) -> dict[str, Any]:
    """What a search was asked to do, by dotted key."""
    sections = {part: _section(settings, part) for part in _SEARCH_SECTIONS}
    return {f"{part}.{key}": value for part, section in sections.items() for key, value in section.items()}


def merge_twins(trials: Sequence[Trial]) -> list[Trial]:
    """The trials, with one in the place of two that stand beside each other in all runs with the same sentences.

    That is the first prompt where it is the hand-crafted one, and an ensemble of one. The one carries both names.
    """
    merged = list(trials)
    searched = [(name.removesuffix(ENSEMBLE), name) for t in trials if (name := t.predictor).endswith(ENSEMBLE)]
    for first, second in (("first", "hand-crafted"), *dict.fromkeys(searched)):
        said = {(t.folder, t.predictor): t.sentences for t in trials}
        folders = {folder for folder, predictor in said if predictor in (first, second)}
        if all(said.get((folder, first)) == said.get((folder, second)) for folder in folders):
            merged = list(_with_both_names(merged, first, second))
    return merged


def _with_both_names(trials: Sequence[Trial], first: str, second: str) -> Iterator[Trial]:
    for trial in trials:
        if trial.predictor != second:
            yield replace(trial, predictor=f"{first} = {second}") if trial.predictor == first else trial
