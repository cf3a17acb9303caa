"""How every method is judged: few-shot, base-to-new, cross-dataset, domain generalisation (CoCoOp, arXiv 2203.05557).

A method is fitted on a `FewShotTask`, which holds training and validation shots and nothing else. Test images are
behind `HeldOut`, which reads them when they are first asked for: once, after all fitting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from ipo import metrics
from ipo.clip.base import ClipModel
from ipo.clip.lengths import TextRoom
from ipo.data.listing import Listing, Target
from ipo.data.splits import relative
from ipo.data.types import ClassHalf, Dataset, Item
from ipo.data.uses import Use
from ipo.errors import ConfigError, DataError
from ipo.scoring import Evaluation, ImageSet, Predictor, evaluate_on

if TYPE_CHECKING:
    from ipo.clip.patches import PatchFeatures


class FeatureStore(Protocol):
    """Where image features come from; `ipo.clip.features.ImageFeatureStore` is one."""

    def load(self, items: Sequence[Item]) -> tuple[tuple[Item, ...], Tensor]:
        """The readable ones of `items`, and their features (N, D) of unit length."""


class PatchSource(Protocol):
    """Where patch features come from; `ipo.clip.patches.PatchStore` is one."""

    def load(self, items: Sequence[Item]) -> PatchFeatures:
        """The features of the patches of `items`, in their order, to be read a few images at a time."""


@dataclass(frozen=True)
class TaskTexts:
    """What is known of a task before an image of it is encoded."""

    dataset: str
    classnames: tuple[str, ...]
    shots: int
    seed: int
    clip: ClipModel
    hand_crafted_prompt: str
    room: TextRoom
    """What texts must fit: the names of all classes that the result is tested with, of which it tells lengths alone."""
    new_classnames: tuple[str, ...] = field(default=(), kw_only=True)
    """Names of the dataset's other classes; none but for a method that declares `new_names` among its uses."""
    split_hash: str = field(default="", kw_only=True)
    """What tells the images of the dataset and their split from others, as `run.json` records it."""


@dataclass(frozen=True)
class FewShotTask(TaskTexts):
    """All that a method may see: labelled shots of some classes under a frozen CLIP."""

    train: ImageSet
    val: ImageSet
    patches: PatchSource | None = field(default=None, kw_only=True)
    """Patch features of any images; for a method that declares to need them."""


class WithheldImages(ImageSet):
    """Images that a method is not shown: to look at them is an error."""

    def __init__(self) -> None:
        pass

    def __getattribute__(self, name: str) -> Any:
        if name in ("items", "features", "labels", "unlabelled"):
            what, remedy = "validation images are read where none may be", "A method has to declare what it uses"
            raise ConfigError(what, remedy=remedy)
        return super().__getattribute__(name)


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

    def read_items(self) -> tuple[Item, ...]:
        """All images that a fit, its calibration and its tests read."""
        test = (item for held_out in self.test_sets().values() for item in held_out.items)
        return (*self.task.train.items, *self.task.val.items, *test)

    def shown(self, uses: AbstractSet[Use] | None) -> FewShotTask:
        """The task as a method is handed it that declares these uses: the rest is withheld.

        One that declares none sees all that is no test image, but for names of new classes.
        """
        if uses is None:
            return self.task
        return replace(
            self.task,
            train=self.task.train if "labels" in uses else self.task.train.unlabelled(),
            val=self.task.val if "val_labels" in uses else WithheldImages(),
            new_classnames=self.new.classnames if self.new and "new_names" in uses else (),
        )

    def of_own_classes(self) -> BaseToNew:
        """The same without the test sets that have other classes than the task."""
        alike = tuple(target for target in self.targets if target.classnames == self.task.classnames)
        return replace(self, new=None, targets=alike)


@dataclass(frozen=True)
class BaseToNewResult:
    """Base and new evaluation of one predictor, and that on the targets."""

    base: Evaluation
    new: Evaluation | None
    targets: Mapping[str, Evaluation] = field(default_factory=dict)

    @property
    def harmonic_mean(self) -> float | None:
        """H of base and new accuracy; None without new classes."""
        return metrics.harmonic_mean(self.base.value, self.new.value) if self.new else None

    def values(self) -> dict[str, float]:
        """Accuracy, or mean average precision, on every test set, and H where there are new classes."""
        mean = {} if self.harmonic_mean is None else {"H": self.harmonic_mean}
        return {name: evaluation.value for name, evaluation in self.by_test_set().items()} | mean

    def to_json(self) -> dict[str, Any]:
        """The predictor's entry in `result.json`."""
        interval = metrics.harmonic_interval(self.base.interval, self.new.interval) if self.new else None
        return {
            "base": self.base.figures(),
            "new": self.new.figures() if self.new else None,
            "H": self.harmonic_mean,
            "H_interval": interval and list(interval),
            "targets": {name: evaluation.figures() for name, evaluation in self.targets.items()},
        }

    def gains(self, before: BaseToNewResult, classnames: Sequence[str]) -> list[dict[str, Any]]:
        """Recall or average precision of each class of the fit, before and under this predictor; largest gain first."""
        rows = [
            {"class": name, "first": old, "best": new, "gain": new - old}
            for name, old, new in zip(classnames, before.base.per_class, self.base.per_class, strict=True)
            if old is not None and new is not None
        ]
        return sorted(rows, key=lambda row: -row["gain"])

    def by_test_set(self) -> dict[str, Evaluation]:
        """The evaluation on every test set, by its name."""
        return {"base": self.base} | ({"new": self.new} if self.new else {}) | dict(self.targets)

    def correct(self) -> dict[str, str]:
        """Each image's verdict, for every test set."""
        return {name: evaluation.correct for name, evaluation in self.by_test_set().items()}

    def resampled(self) -> dict[str, tuple[float, tuple[float, ...]]]:
        """Mean average precision, and that on resamplings of the images, for every test set."""
        return {name: (evaluation.value, evaluation.resampled) for name, evaluation in self.by_test_set().items()}


def task_texts(listing: Listing, clip: ClipModel, uses: AbstractSet[Use] = frozenset()) -> TaskTexts:
    """The task of a listing without its images, as a method of these uses is handed it.

    Raises `DataError` for a class name that is too long for CLIP alone.
    """
    new = listing.new.classnames if listing.new else ()
    room = TextRoom.of(clip, listing.half.classnames, new, *(target.classnames for target in listing.targets))
    room.require([])
    return TaskTexts(
        dataset=listing.dataset.name,
        classnames=listing.half.classnames,
        shots=listing.shots,
        seed=listing.seed,
        clip=clip,
        hand_crafted_prompt=listing.dataset.hand_crafted_prompt,
        room=room,
        new_classnames=new if "new_names" in uses else (),
        split_hash=listing.dataset.split_hash,
    )


def load_task(listing: Listing, clip: ClipModel, store: FeatureStore, patches: PatchSource | None = None) -> BaseToNew:
    """The task of a listing with the features of its shots, and its test sets."""
    dataset = listing.dataset
    base = _held_out(dataset, listing.half, store)
    new = None if listing.new is None else _held_out(dataset, listing.new, store)
    targets = tuple(load_target(target, store) for target in listing.targets)
    texts = vars(task_texts(listing, clip))
    train = _load_images(store, listing.train, "training")
    val = _load_images(store, listing.val, "validation")
    task = FewShotTask(**texts, train=train, val=val, patches=patches)
    return BaseToNew(task, base, new, dataset, targets)


def load_target(target: Target, store: FeatureStore) -> HeldOut:
    """The images of a target, to be read when they are asked for."""
    return HeldOut(target.name, target.classnames, target.items, target.root, store)


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
