"""Prompts that are judged without a search: those of one's own, and fixed ones against their published accuracy.

Of the latter nothing is learned, so the figures check this implementation.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ipo.data
from ipo.clip.base import ClipModel
from ipo.clip.features import feature_store
from ipo.clip.lengths import TextRoom
from ipo.clip.load import load_clip
from ipo.config import DataSettings, Settings
from ipo.data.benchmarks.catalogue import catalogue_entry
from ipo.data.check import all_items, count_problems, require_openable
from ipo.data.fewshot import Half, class_half
from ipo.data.listing import named_dataset
from ipo.data.load import dataset_states, load_dataset
from ipo.data.types import Dataset
from ipo.prompt import Prompt
from ipo.runs.check import check
from ipo.runs.readers import EVALUATE
from ipo.scoring import Evaluation, ImageSet, PromptPredictor, evaluate_on
from ipo.task import FeatureStore

TOLERANCE = 0.5
"""Most points between a published accuracy and ours that count as agreement."""

COMPARABLE_MODEL = "ViT-B-16-quickgelu/openai"
"""Name of the model that the published figures were measured with."""


@dataclass(frozen=True)
class Verdict:
    """One figure: accuracies in percent; `note` says why there is nothing to compare, and is empty where there is."""

    dataset: str
    prompt: str
    half: Half
    expected: float
    got: float
    note: str = ""

    @property
    def difference(self) -> float:
        """Ours minus the published one, in points."""
        return self.got - self.expected

    @property
    def agrees(self) -> bool:
        """Whether the figure is within the tolerance, or is not comparable at all."""
        return bool(self.note) or abs(self.difference) <= TOLERANCE

    def to_json(self) -> dict[str, Any]:
        """The verdict with its difference, rounded to hundredths of a point."""
        figures = {"expected": self.expected, "got": round(self.got, 2), "difference": round(self.difference, 2)}
        head = {"dataset": self.dataset, "prompt": self.prompt, "half": self.half}
        return {**head, **figures, "agrees": self.agrees, "note": self.note}


@dataclass(frozen=True)
class TestedPrompt:
    """A prompt of one's own, or the ensemble of several, and what it did."""

    prompt: str
    """The prompt, or what the ensemble is called."""
    split_source: str
    """Where the split is from that the images are the test images of."""
    evaluation: Evaluation

    @property
    def value(self) -> float:
        """Accuracy, or mean average precision, in 0..1."""
        return self.evaluation.value

    def to_json(self) -> dict[str, Any]:
        """The row that `ipo evaluate --json` prints."""
        return {"prompt": self.prompt, "split_source": self.split_source, **self.evaluation.figures()}


def published_figures() -> dict[str, list[dict[str, Any]]]:
    """Rows of `prompt`, `base` and `new` by dataset."""
    file = Path(ipo.data.__file__).with_name("published.toml")
    return tomllib.loads(file.read_text(encoding="utf-8"))


def present_datasets(root: Path | None) -> list[str]:
    """Datasets with published figures that are here."""
    states = dataset_states(root)
    return [name for name in published_figures() if not states[name]]


def read_datasets(names: Sequence[str], data: DataSettings, seed: int) -> list[Dataset]:
    """The listings of these datasets. Raises `DataError` for one without test images that can be opened."""
    found = [load_dataset(name, data.root, seed=seed) for name in names]
    for dataset in found:
        what = f"test images of {dataset.name}"
        require_openable(dataset.test, what, skip_unreadable=data.skip_unreadable)
    return found


def verify_dataset(dataset: Dataset, clip: ClipModel, store: FeatureStore) -> Iterator[Verdict]:
    """Each published figure of a dataset beside ours."""
    name, note = dataset.name, not_comparable(dataset, clip.fingerprint.name)
    TextRoom.of(clip, dataset.classnames).require(Prompt(row["prompt"]) for row in published_figures()[name])
    halves: tuple[Half, Half] = ("base", "new")
    for half in halves:
        classes = class_half(dataset, half)
        images = ImageSet(*store.load(classes.take(dataset.test)))
        for row in published_figures()[name]:
            predictor = PromptPredictor(clip, (Prompt(row["prompt"]),))
            got = evaluate_on(predictor, images, classes.classnames).value
            yield Verdict(name, row["prompt"], half, row[half], 100 * got, note)


def not_comparable(dataset: Dataset, model: str) -> str:
    """Why the published figures say nothing about this model on these images; empty where they do."""
    if model != COMPARABLE_MODEL:
        return f"not comparable: measured with {COMPARABLE_MODEL}, not {model}"
    if dataset.split_source.startswith(("seeded", "official", "own")):
        return f"not comparable: split {dataset.split_source}"
    problems = count_problems(catalogue_entry(dataset.name), dataset)
    return f"not comparable: {'; '.join(problems)}" if problems else ""


def evaluate_prompts(
    settings: Settings, texts: list[str], split: Half, ensemble: bool, images: Literal["test", "all"] = "test"
) -> list[TestedPrompt]:
    """Each prompt, and their ensemble, tested among the classes of `split`.

    It is that on the test images, or on all `images`, training images too.
    """
    prompts = [Prompt(text) for text in texts]
    check(EVALUATE, settings)
    dataset = named_dataset(settings.data, settings.seed)
    half = class_half(dataset, split)
    items = half.take(all_items(dataset) if images == "all" else dataset.test)
    what = f"{'test ' if images == 'test' else ''}images ({split})"
    require_openable(items, what, skip_unreadable=settings.data.skip_unreadable)
    clip = load_clip(settings.clip, offline=settings.offline)
    TextRoom.of(clip, half.classnames).require(prompts)
    loaded = ImageSet(*feature_store(settings.clip, clip, skip_unreadable=settings.data.skip_unreadable).load(items))
    source = dataset.split_source if images == "test" else "none, all images"

    def tested(name: str, *members: Prompt) -> TestedPrompt:
        return TestedPrompt(name, source, evaluate_on(PromptPredictor(clip, members), loaded, half.classnames))

    rows = [tested(text, prompt) for text, prompt in zip(texts, prompts, strict=True)]
    return [*rows, tested(f"mean of the {len(prompts)}", *prompts)] if ensemble else rows
