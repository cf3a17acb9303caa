"""How every method is judged: few-shot, base-to-new, cross-dataset, domain generalisation (CoCoOp, arXiv 2203.05557).

A method is fitted on a `FewShotTask`, which holds training and validation shots and nothing else. Test images are
behind `HeldOut`, which reads them when they are first asked for: once, after all fitting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from ipo import metrics
from ipo.clip.base import ClipModel
from ipo.config import Settings
from ipo.data.check import require_openable, require_shots
from ipo.data.fewshot import class_half, draw_shots
from ipo.data.load import load_dataset, target_parts
from ipo.data.splits import relative
from ipo.data.types import ClassHalf, Dataset, Item
from ipo.errors import DataError
from ipo.evaluate import ImageSet, Predictor, require_finite
from ipo.lengths import TextRoom


class FeatureStore(Protocol):
    """Where image features come from; `ipo.clip.features.ImageFeatureStore` is one."""

    def load(self, items: Sequence[Item]) -> tuple[tuple[Item, ...], Tensor]:
        """The readable ones of `items`, and their features (N, D) of unit length."""


@dataclass(frozen=True)
class FewShotTask:
    """All that a method may see: labelled shots of some classes under a frozen CLIP."""

    dataset: str
    classnames: tuple[str, ...]
    train: ImageSet
    val: ImageSet
    shots: int
    seed: int
    clip: ClipModel
    hand_crafted_prompt: str
    room: TextRoom
    """What texts must fit: the names of all classes that the result is tested with, of which it tells lengths alone."""


@dataclass(frozen=True)
class HeldOut:
    """Test images with the class names that compete for them; `images` are read at first use."""

    dataset: str
    classnames: tuple[str, ...]
    items: tuple[Item, ...]
    root: Path
    store: FeatureStore

    @cached_property
    def images(self) -> ImageSet:
        """The test images with their features."""
        kept, features = self.store.load(self.items)
        return ImageSet(kept, features)

    @property
    def paths(self) -> list[str]:
        """Where each image lies below `root`, in the order of an evaluation's `correct`."""
        return [relative(item.path, self.root) for item in self.images.items]


@dataclass(frozen=True)
class BaseToNew:
    """A few-shot task with its test sets: `base`, of the task's own classes, and `new`, of the others, if any."""

    task: FewShotTask
    base: HeldOut
    new: HeldOut | None
    source: Dataset
    """The dataset that all of this was drawn from."""
    targets: tuple[HeldOut, ...] = ()
    """Other datasets or domains to test on."""

    @property
    def classes(self) -> str:
        """`base` when the task has the first half of the classes only, else `all`."""
        return "base" if self.new else "all"

    def test_sets(self) -> dict[str, HeldOut]:
        """All test images: `base`, `new` if any, and the targets by their names."""
        halves = {"base": self.base} | ({"new": self.new} if self.new else {})
        return halves | {target.dataset: target for target in self.targets}

    def of_own_classes(self) -> BaseToNew:
        """The same without the test sets that have other classes than the task."""
        alike = tuple(target for target in self.targets if target.classnames == self.task.classnames)
        return replace(self, new=None, targets=alike)


@dataclass(frozen=True)
class Evaluation:
    """Accuracy (0..1) on `n` test images with its 95% Wilson interval, recall per class, and each image's verdict."""

    accuracy: float
    low: float
    high: float
    n: int
    recall: tuple[float | None, ...]
    correct: str
    """One character an image, `1` where the prediction is right."""

    @property
    def interval(self) -> metrics.Interval:
        """Accuracy with the ends of its interval."""
        return self.accuracy, self.low, self.high

    def figures(self) -> dict[str, Any]:
        """The figures that `result.json` holds."""
        return {"accuracy": self.accuracy, "low": self.low, "high": self.high, "n": self.n}


@dataclass(frozen=True)
class BaseToNewResult:
    """Base and new evaluation of one predictor, and that on the targets."""

    base: Evaluation
    new: Evaluation | None
    targets: Mapping[str, Evaluation] = field(default_factory=dict)

    @property
    def harmonic_mean(self) -> float | None:
        """H of base and new accuracy; None without new classes."""
        return metrics.harmonic_mean(self.base.accuracy, self.new.accuracy) if self.new else None

    def to_json(self) -> dict[str, Any]:
        """The predictor's entry in `result.json`."""
        interval = metrics.harmonic_interval(self.base.interval, self.new.interval) if self.new else None
        return {
            "base": self.base.figures(),
            "new": self.new.figures() if self.new else None,
            "H": self.harmonic_mean,
            "H_interval": interval,
            "targets": {name: evaluation.figures() for name, evaluation in self.targets.items()},
        }

    def correct(self) -> dict[str, str]:
        """Each image's verdict, for every test set."""
        halves = {"base": self.base} | ({"new": self.new} if self.new else {})
        return {name: evaluation.correct for name, evaluation in (halves | dict(self.targets)).items()}


@dataclass(frozen=True)
class Target:
    """Another dataset, or one domain of it, to test on: its name, its class names, and its images."""

    name: str
    classnames: tuple[str, ...]
    items: tuple[Item, ...]
    root: Path
    split_hash: str


@dataclass(frozen=True)
class Listing:
    """What a task is made of, from the listings alone: no image was read, and no model is needed."""

    dataset: Dataset
    half: ClassHalf
    """The classes that are fitted."""
    new: ClassHalf | None
    """The others, where a half is fitted."""
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    targets: tuple[Target, ...]

    def room(self, clip: ClipModel) -> TextRoom:
        """What texts must fit: the names of all classes that are tested. Raises `DataError` for one too long alone."""
        new = self.new.classnames if self.new else ()
        room = TextRoom.of(clip, self.half.classnames, new, *(target.classnames for target in self.targets))
        room.require([])
        return room

    def require_openable(self, *, skip_unreadable: bool) -> None:
        """Raise `DataError` for images to learn from or to test on that are missing or no images; see its namesake."""
        images = {
            "training images": self.train,
            **({"validation images": self.val} if self.val else {}),
            "test images (base)": self.half.take(self.dataset.test),
            **({"test images (new)": self.new.take(self.dataset.test)} if self.new else {}),
            **{f"test images ({target.name})": target.items for target in self.targets},
        }
        for what, items in images.items():
            require_openable(items, what, skip_unreadable=skip_unreadable)


def read_listing(settings: Settings) -> Listing:
    """The task that `settings` describe. Shots are drawn over all classes first and filtered to the half afterwards."""
    data = settings.data
    dataset = named_dataset(settings)
    train, val = draw_shots(dataset, data.shots, settings.seed)
    use_all = data.classes == "all" or (data.classes == "auto" and dataset.own)
    half = class_half(dataset, "all" if use_all else "base")
    require_shots(half.classnames, half.take(train), dataset.root)
    listing = Listing(
        dataset=dataset,
        half=half,
        new=None if use_all else class_half(dataset, "new"),
        train=half.take(train),
        val=half.take(val),
        targets=tuple(read_target(spec, settings) for spec in dict.fromkeys(data.targets)),
    )
    for target in listing.targets:
        _require_unseen(target, listing)
    return listing


def load_task(settings: Settings, clip: ClipModel, store: FeatureStore, listing: Listing | None = None) -> BaseToNew:
    """The task that `settings` describe, or a `listing` of it, with the features of its shots."""
    found = listing or read_listing(settings)
    dataset, half = found.dataset, found.half
    base = _held_out(dataset, half, store)
    new = None if found.new is None else _held_out(dataset, found.new, store)
    targets = tuple(load_target(target, store) for target in found.targets)
    room = found.room(clip)
    task = FewShotTask(
        dataset=dataset.name,
        classnames=half.classnames,
        train=_load_images(store, found.train, "training"),
        val=_load_images(store, found.val, "validation"),
        shots=settings.data.shots,
        seed=settings.seed,
        clip=clip,
        hand_crafted_prompt=dataset.hand_crafted_prompt,
        room=room,
    )
    return BaseToNew(task, base, new, dataset, targets)


def named_dataset(settings: Settings) -> Dataset:
    """The dataset that the settings name."""
    data = settings.data
    return load_dataset(data.dataset, data.root, seed=settings.seed, domains=data.domains, names_file=data.names)


def read_target(spec: str, settings: Settings) -> Target:
    """Another dataset to test on, under its own class names (cross-dataset transfer, domain generalisation).

    `NAME` takes the dataset's test split; `NAME@DOMAIN` takes all images of one domain, as domain generalisation does
    for a domain that the fit has not seen.
    """
    name, domain = target_parts(spec)
    dataset = load_dataset(name, settings.data.root, seed=settings.seed, domains=(domain,) if domain else ())
    items = dataset.train + dataset.val + dataset.test if domain else dataset.test
    return Target(spec, dataset.classnames, items, dataset.root, dataset.split_hash)


def load_target(target: Target, store: FeatureStore) -> HeldOut:
    """The images of a target, to be read when they are asked for."""
    return HeldOut(target.name, target.classnames, target.items, target.root, store)


def _require_unseen(target: Target, listing: Listing) -> None:
    """Raise `DataError` where a target holds images that the task is fitted on."""
    seen = {item.path for item in (*listing.train, *listing.val)} & {item.path for item in target.items}
    if seen:
        raise DataError(
            f"{len(seen)} of the {len(target.items)} images of {target.name} are shots of the fit",
            remedy="Fit on other domains (--domains), or leave this target out",
        )


def evaluate_on(predictor: Predictor, images: ImageSet, classnames: Sequence[str]) -> Evaluation:
    """How often `predictor` finds the right one of `classnames` on `images`. `ModelError` where it cannot tell.

    Raises `DataError` where there is no image.
    """
    if not len(images):
        raise DataError("there is no image to test on", remedy="Add test images, or look at `ipo datasets check`")
    with torch.no_grad():
        logits = predictor.logits(images, classnames)
    require_finite(logits, images, type(predictor).__name__)
    labels = images.labels
    hits = (logits.argmax(dim=-1) == labels).tolist()
    accuracy = metrics.accuracy(logits, labels)
    low, high = metrics.wilson_interval(accuracy, len(hits))
    recall = tuple(metrics.per_class_recall(logits, labels))
    return Evaluation(accuracy, low, high, len(hits), recall, "".join("01"[hit] for hit in hits))


def evaluate_base_to_new(predictor: Predictor, protocol: BaseToNew) -> BaseToNewResult:
    """Base images against base names, new images against new names, and each target's against its own."""
    return BaseToNewResult(
        base=evaluate_held_out(predictor, protocol.base),
        new=evaluate_held_out(predictor, protocol.new) if protocol.new else None,
        targets={target.dataset: evaluate_held_out(predictor, target) for target in protocol.targets},
    )


def verdicts(protocol: BaseToNew, results: Mapping[str, BaseToNewResult]) -> dict[str, Any]:
    """The content of `correct.json`: each test image's path, and its verdict under each predictor."""
    paths = {name: held_out.paths for name, held_out in protocol.test_sets().items()}
    return {"images": paths, **{name: result.correct() for name, result in results.items()}}


def evaluate_held_out(predictor: Predictor, held_out: HeldOut) -> Evaluation:
    """How `predictor` does on one test set, under that set's class names."""
    return evaluate_on(predictor, held_out.images, held_out.classnames)


def _held_out(dataset: Dataset, half: ClassHalf, store: FeatureStore) -> HeldOut:
    return HeldOut(dataset.name, half.classnames, half.take(dataset.test), dataset.root, store)


def _load_images(store: FeatureStore, items: tuple[Item, ...], purpose: str) -> ImageSet:
    kept, features = store.load(items)
    if items and not kept:
        raise DataError(f"none of the {len(items)} {purpose} images can be read", where=str(items[0].path.parent))
    return ImageSet(kept, features)
