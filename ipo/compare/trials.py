"""Finished runs read back for comparison: one trial for each predictor of each run."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipo.errors import RunError
from ipo.run_folder import CONFIG_FILE, RESULT_FILE, read_run_json

CORRECT_FILE = "correct.json"
FIXED = ("shots", "model")
"""What every method's name tells where not all runs agree on it."""

ALL_CLASSES = "all"

_SEARCH_SECTIONS = ("llm", "captions", "search")
_RESOURCES = {"texts_at_once", "images_at_once", "checkpointing", "workers"}
_RESOURCES |= {f"llm.{key}" for key in ("base_url", "concurrency", "device", "retries", "timeout")}
"""Options that say how something is computed and not what: they make no other method."""


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
    """Test accuracy on the classes of the fit."""
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


def read_trials(folder: Path, every: bool = False) -> list[Trial]:
    """The predictors of a finished run: what IPO found, or all of a baseline; `every` adds the controls beside IPO."""
    result, correct = read_run_json(folder, RESULT_FILE), read_run_json(folder, CORRECT_FILE)
    try:
        names = [n for n in result["predictors"] if every or result["method"] != "ipo" or n.startswith("ipo")]
        return [_trial(folder, result, correct, name) for name in names]
    except KeyError as error:
        raise RunError(f"{RESULT_FILE} or {CORRECT_FILE} lacks {error}", where=str(folder)) from error


def _trial(folder: Path, result: dict[str, Any], correct: dict[str, Any], name: str) -> Trial:
    figures = result["predictors"][name]
    options = result.get("options")
    reading = result.get("figures", {}).get("reading", {}).get("sentence")
    settings = _settings(folder)
    domains = "+".join(settings.get("data", {}).get("domains", ()))
    return Trial(
        predictor=name,
        dataset=f"{result['dataset']}@{domains}" if domains else result["dataset"],
        seed=result["seed"],
        facts={key: result[key] for key in (*FIXED, "classes")}
        | (_searching(settings) if options is None else options),
        base=figures["base"]["accuracy"],
        new=figures["new"]["accuracy"] if figures["new"] else None,
        targets={spec: target["accuracy"] for spec, target in figures.get("targets", {}).items()},
        correct={split: bits for split, bits in correct[name].items() if bits},
        images={split: tuple(paths) for split, paths in correct["images"].items() if paths},
        seconds=result["seconds"],
        cost=result["cost"],
        sentences=tuple(figures.get("prompts") or ([reading] if reading else ())),
    )


def _settings(folder: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise RunError(f"cannot read {CONFIG_FILE}: {error}", where=str(folder)) from error


def _searching(settings: dict[str, Any]) -> dict[str, Any]:
    """What an IPO run was asked to do, by dotted key."""
    return {f"{part}.{key}": value for part in _SEARCH_SECTIONS for key, value in settings.get(part, {}).items()}


def name_places(trials: Sequence[Trial]) -> list[str]:
    """Each trial's dataset; with a note, where only some of them have all classes at once instead of the base ones."""
    mixed = len({trial.facts["classes"] for trial in trials}) > 1
    return [
        f"{trial.dataset}, all classes" if mixed and trial.facts["classes"] == ALL_CLASSES else trial.dataset
        for trial in trials
    ]


def name_methods(trials: Sequence[Trial]) -> list[str]:
    """A name for each trial's method: the predictor's, with what tells it from others of that name.

    An option is told where it differs between runs on one dataset: published options differ between datasets, and
    that does not make another method.
    """
    common = [key for key in FIXED if len({repr(trial.facts[key]) for trial in trials}) > 1]
    names = []
    for trial in trials:
        keys = [*common, *_telling_options(trial.predictor, trials)]
        told = ", ".join(f"{key}={trial.facts[key]}" for key in keys if trial.facts.get(key) is not None)
        names.append(f"{trial.predictor} ({told})" if told else trial.predictor)
    return names


def _telling_options(predictor: str, trials: Sequence[Trial]) -> list[str]:
    """Options that differ between trials of one predictor in one place."""
    values: dict[tuple[str, str], set[str]] = {}
    own = [pair for pair in zip(trials, name_places(trials), strict=True) if pair[0].predictor == predictor]
    apart = {*FIXED, *_RESOURCES, "classes"}
    keys = dict.fromkeys(key for trial, _ in own for key in trial.facts if key not in apart)
    for trial, place in own:
        for key in keys:
            values.setdefault((key, place), set()).add(repr(trial.facts.get(key)))
    return [key for key in keys if any(len(found) > 1 for (name, _), found in values.items() if name == key)]
