"""What a task is made of, read from the listings of datasets alone: which classes, which shots, which test images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ipo.config import DataSettings
from ipo.data.check import require_openable, require_shots
from ipo.data.fewshot import class_half, draw_shots
from ipo.data.load import load_dataset, target_parts
from ipo.data.types import ClassHalf, Dataset, Item
from ipo.errors import DataError


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
    shots: int
    """How many training images a class were asked for."""
    seed: int
    """The seed that they were drawn with, which is that of all else in a run."""

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


def read_listing(data: DataSettings, seed: int) -> Listing:
    """The task that `data` describes. Shots are drawn over all classes first and filtered to the half afterwards."""
    dataset = named_dataset(data, seed)
    train, val = draw_shots(dataset, data.shots, seed)
    use_all = data.classes == "all" or (data.classes == "auto" and dataset.own)
    half = class_half(dataset, "all" if use_all else "base")
    require_shots(half.classnames, half.take(train), dataset.root)
    listing = Listing(
        dataset=dataset,
        half=half,
        new=None if use_all else class_half(dataset, "new"),
        train=half.take(train),
        val=half.take(val),
        targets=tuple(
            read_target(spec, data.root, seed, multi_label=data.metric == "map") for spec in dict.fromkeys(data.targets)
        ),
        shots=data.shots,
        seed=seed,
    )
    for target in listing.targets:
        _require_unseen(target, listing)
    return listing


def named_dataset(data: DataSettings, seed: int) -> Dataset:
    """The dataset that the settings name; `seed` draws a split where none is published."""
    return load_dataset(
        data.dataset,
        data.root,
        seed=seed,
        domains=data.domains,
        names_file=data.names,
        multi_label=data.metric == "map",
    )


def read_target(spec: str, root: Path | None, seed: int, *, multi_label: bool = False) -> Target:
    """Another dataset to test on, under its own class names (cross-dataset transfer, domain generalisation).

    `NAME` takes the dataset's test split; `NAME@DOMAIN` takes all images of one domain, as domain generalisation does
    for a domain that the fit has not seen.
    """
    name, domain = target_parts(spec)
    dataset = load_dataset(name, root, seed=seed, domains=(domain,) if domain else (), multi_label=multi_label)
    items = dataset.train + dataset.val + dataset.test if domain else dataset.test
    return Target(spec, dataset.classnames, items, dataset.root, dataset.split_hash)


def _require_unseen(target: Target, listing: Listing) -> None:
    """Raise `DataError` where a target holds images that the task is fitted on."""
    seen = {item.path for item in (*listing.train, *listing.val)} & {item.path for item in target.items}
    if seen:
        raise DataError(
            f"{len(seen)} of the {len(target.items)} images of {target.name} are shots of the fit",
            remedy="Fit on other domains (--domains), or leave this target out",
        )
