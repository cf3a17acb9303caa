"""One's own pictures: a folder of class folders, or a table of paths and labels."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ipo.data.benchmarks.layouts import labelled
from ipo.data.folders import Listing, class_folders, loose_images
from ipo.data.own.classnames import named_classes
from ipo.data.splits import SPLITS, Parts, assemble, hold_out, seeded_split
from ipo.data.types import Dataset, Split
from ipo.errors import DataError
from ipo.screen import counted

OWN_PROMPT = "a photo of a <CLASS>."
"""The hand-crafted prompt where no paper gives one."""

SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Words that stand for a split, in folder names and tables."""

_TEST_SHARE = 0.3
_LAYOUT = "Make a folder of each class, with its pictures inside, such as cat/1.jpg and dog/2.jpg, or train/cat/1.jpg"


def split_named(word: str) -> Split | None:
    """The split that a word stands for; None if it is none."""
    return next((split for split in SPLITS if word.strip().lower() in SPLIT_NAMES[split]), None)


def require_folder(place: str) -> Path:
    """The folder of `folder:PATH`. Raises `DataError` where there is none."""
    root = Path(place).expanduser()
    if not root.is_dir():
        raise DataError("no such folder", where=str(root), remedy="Write folder:PATH with one folder a class inside")
    return root


def read_folder(place: str, seed: int, names_file: Path | None = None) -> Dataset:
    """`folder:PATH`: one folder a class, or `train/`, `val/` and `test/` above them.

    Without them the split is seeded, 50/20/30; with `train/` but no `test/`, 30% of it is kept for testing; `test/`
    alone can be tested on. `notes` of the dataset say what was passed over.
    """
    root = require_folder(place)
    splits = split_folders(root)
    tops = list(splits.values()) or [root]
    classes = sorted({name for top in tops for name in class_folders(top)})
    loose = [path for top in dict.fromkeys((root, *tops)) for path in loose_images(top)]
    _require_classes(classes, root, loose)
    own = [top / name for top in tops for name in classes if (top / name).is_dir()]
    listing = Listing(root, [*splits.values(), *own])
    if splits:
        found = {split: labelled(top, classes, listing=listing) for split, top in splits.items()}
        parts, source = with_test(found, "folders", seed)
    else:
        parts, source = seeded_split(labelled(root, classes, listing=listing), seed), f"seeded ({seed})"
    names, notes = named_classes(classes, root, names_file), tuple(listing.notes(loose))
    dataset = own_dataset(root.resolve().name, root, names, parts, source, notes)
    return replace(dataset, notes=notes, overlaps=tuple(listing.overlaps))


def split_folders(root: Path) -> dict[Split, Path]:
    """The folder of each split; empty where `train` is no split but a class of railways.

    Folders are splits if all of them are called so and hold folders. Raises `DataError` for two that stand for one
    split, for splits without class folders, and for another folder beside two splits that hold folders, since it would
    make classes of them all.
    """
    folders = {name: split_named(name) for name in class_folders(root)}
    splits = {name: split for name, split in folders.items() if split}
    known, others = ", ".join(splits), [name for name in folders if name not in splits]
    holding = [name for name in splits if class_folders(root / name)]
    if others and len(holding) > 1:
        raise DataError(
            f"{', '.join(others[:5])} beside the split folders {known}",
            where=str(root),
            remedy="Move it elsewhere; beside train/, val/ and test/ there may be no other folder",
        )
    if others or not splits:
        return {}
    if not holding:
        raise DataError(f"no class folders in {known}", where=str(root), remedy=_LAYOUT)
    for split in SPLITS:
        named = [name for name, own in splits.items() if own == split]
        if len(named) > 1:
            what = f"{' and '.join(named)} are both the {split} split"
            raise DataError(what, where=str(root), remedy="Put their images into one of them")
    return {split: root / name for name, split in splits.items()}


def _require_classes(classes: Sequence[str], root: Path, loose: Sequence[Path]) -> None:
    """Raise `DataError` that says what a folder holds instead of two class folders at least."""
    if len(classes) < 2:
        folders = f"one class folder, {classes[0]}" if classes else "no class folders"
        what = (
            f"{counted(len(classes), 'class')} found: {folders}, and {counted(len(loose), 'picture')} directly inside"
        )
        raise DataError(what, where=str(root), remedy=_LAYOUT)


def with_test(parts: Parts, source: str, seed: int) -> tuple[Parts, str]:
    """The parts, and where they come from; if there is no test part, 30% of the training part becomes one."""
    if parts.get("test") or not parts.get("train"):
        return parts, source
    train, test = hold_out(parts["train"], _TEST_SHARE, seed)
    return {**parts, "train": train, "test": test}, f"{source}, seeded test ({seed})"


def own_dataset(
    name: str, root: Path, classnames: Sequence[str], parts: Parts, source: str, notes: Sequence[str] = ()
) -> Dataset:
    """The dataset. Raises `DataError` for fewer than two classes, no images, and a file name that is not UTF-8.

    `notes` are what the error says about there being no images.
    """
    if len(classnames) < 2:
        found = f"'{classnames[0]}' alone" if classnames else "no image is listed"
        what = f"{counted(len(classnames), 'class')} found: {found}"
        raise DataError(what, where=str(root), remedy="Two are the least to tell apart")
    for item in itertools.chain.from_iterable(parts.values()):
        _require_utf8(item.path)
    if not parts.get("train") and not parts.get("test"):
        remedy = ". ".join((*notes, "Put images into the class folders"))
        raise DataError("no training images found", where=str(root), remedy=remedy)
    return assemble(name, root, classnames, parts, prompt=OWN_PROMPT, source=source, own=True)


def _require_utf8(path: Path) -> None:
    """Raise `DataError` for a name in another encoding, such as old archives leave: no record could hold it."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise DataError("the name of a file or folder is not UTF-8", where=shown, remedy="Rename it") from error
