"""What a dataset is once it is on disk: labelled image files, class names and where its split came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ipo.errors import ConfigError

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Item:
    """One labelled image file. Labels index the class names of the dataset (or of the half) that holds it."""

    path: Path
    label: int
    """Its class; of several labels the one that the fewest pictures have, by which splits are drawn."""
    domain: str = ""
    labels: tuple[int, ...] = ()
    """All its labels in order, where the data have several a picture; empty where they have one."""

    @property
    def classes(self) -> tuple[int, ...]:
        """All its labels, in order, whatever the data."""
        return self.labels or (self.label,)

    @property
    def label_text(self) -> str:
        """Its labels as hashes hold them."""
        return ";".join(map(str, self.classes))


@dataclass(frozen=True)
class UnlabelledItem(Item):
    """An image file for those who are not to see its label: it holds none, and to read it is an error."""

    label: int = field(default=-1, init=False, repr=False, compare=False)
    labels: tuple[int, ...] = field(default=(), init=False, repr=False, compare=False)

    def __getattribute__(self, name: str) -> Any:
        if name in ("label", "labels"):
            what, remedy = "the label of an image is read where none may be", "A method has to declare what it uses"
            raise ConfigError(what, where=self.path.name, remedy=remedy)
        return super().__getattribute__(name)


@dataclass(frozen=True)
class Dataset:
    """A dataset ready for use. `classnames` are in label order, with underscores already turned into spaces."""

    name: str
    root: Path
    """Folder that image paths are given relative to, in reports and in few-shot draws."""
    classnames: tuple[str, ...]
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    test: tuple[Item, ...]
    hand_crafted_prompt: str
    """The prompt that the papers use for this dataset, with `<CLASS>` for the class name."""
    split_source: str
    """Where the split is from, such as `published (FILE)`, `seeded (SEED)` or `folders`; every result names it."""
    split_hash: str
    """sha256 over the relative paths and labels of the three splits."""
    own: bool = False
    """Whether these are somebody's own pictures rather than a published benchmark."""
    notes: tuple[str, ...] = ()
    """What lay among the images and was passed over, a sentence each."""
    overlaps: tuple[str, ...] = ()
    """Folders that are in two classes or splits by links, a sentence each; the second time they are passed over."""


@dataclass(frozen=True)
class ClassHalf:
    """Some classes of a dataset, relabelled from 0, with their items of each split."""

    classnames: tuple[str, ...]
    labels: tuple[int, ...]
    """The dataset's label of each class name."""

    def take(self, items: Sequence[Item]) -> tuple[Item, ...]:
        """The items of these classes, in their order, relabelled; of several labels those of these classes are kept."""
        position = {label: index for index, label in enumerate(self.labels)}
        return tuple(_relabelled(item, position) for item in items if not position.keys().isdisjoint(item.classes))


def _relabelled(item: Item, position: Mapping[int, int]) -> Item:
    labels = tuple(position[label] for label in item.labels if label in position)
    return Item(item.path, position.get(item.label, min(labels, default=0)), item.domain, labels)
