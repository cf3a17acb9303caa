"""One's own pictures: a folder of class folders, or a table of paths and labels."""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ipo.data.classnames import named_classes
from ipo.data.folders import Listing, class_folders, loose_images
from ipo.data.layouts import labelled
from ipo.data.splits import SPLITS, Parts, assemble, hold_out, seeded_split
from ipo.data.types import Dataset, Item, Split
from ipo.errors import DataError

OWN_PROMPT = "a photo of a <CLASS>."
"""The hand-crafted prompt where no paper gives one."""

SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""Words that stand for a split, in folder names and tables."""

_COLUMNS = {
    "path": ("path", "image", "file", "filename", "image_path"),
    "label": ("label", "class", "classname", "category"),
    "split": ("split", "subset"),
    "domain": ("domain",),
}
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


def require_table(place: str) -> Path:
    """The file of `csv:FILE`. Raises `DataError` where there is none."""
    file = Path(place).expanduser()
    if not file.is_file():
        raise DataError(
            "cannot read table: no such file", where=str(file), remedy="Write csv:FILE with columns path and label"
        )
    return file


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
        what = f"{len(classes)} classes found: {folders}, and {len(loose)} pictures directly inside"
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
        what = f"{len(classnames)} classes found: {found}"
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


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    line: int
    path: str
    label: str
    split: str = ""
    domain: str = ""


def read_csv(place: str, seed: int, names_file: Path | None = None) -> Dataset:
    """`csv:FILE`: columns path and label, and perhaps split and domain; commas, semicolons or tabs between them.

    A first line with these words names the columns; without it they are taken in this order. Paths are relative to
    the table. Labels that are all integers are ordered as such, others by ASCII. Errors name the line.
    """
    file = require_table(place)
    return read_table(file, seed, names_file, source=f"table ({file.name})")


def read_table(file: Path, seed: int, names_file: Path | None, source: str) -> Dataset:
    """The table that `read_csv` describes; `source` says where its splits come from."""
    rows = list(_rows(file))
    labels = in_label_order(row.label for row in rows)
    names = named_classes(labels, file.parent, names_file)
    position = {label: index for index, label in enumerate(labels)}
    items = [Item(_existing(file, row), position[row.label], row.domain) for row in rows]
    if not any(row.split for row in rows):
        return own_dataset(file.stem, file.parent, names, seeded_split(items, seed), f"seeded ({seed})")
    parts: Parts = {split: [] for split in SPLITS}
    for row, item in zip(rows, items, strict=True):
        split = split_named(row.split)
        if split is None:
            raise DataError(f"no split '{row.split}'", where=f"{file}:{row.line}", remedy="Use train, val or test")
        parts[split].append(item)
    return own_dataset(file.stem, file.parent, names, *with_test(parts, source, seed))


def in_label_order(labels: Iterable[str]) -> list[str]:
    """Labels without repetition: by number if all are integers, else by ASCII."""
    unique = set(labels)
    numeric = all(label.isdecimal() for label in unique)
    return sorted(unique, key=lambda label: (int(label) if numeric else 0, label))


def _existing(file: Path, row: Row) -> Path:
    path = file.parent / row.path
    if not path.is_file():
        raise DataError(f"no image '{row.path}'", where=f"{file}:{row.line}", remedy="Paths are relative to the table")
    return path


def _rows(file: Path) -> Iterator[Row]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read table: {error}", where=str(file)) from error
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    columns = _column_positions([cell.strip().lower() for cell in head.split(delimiter)])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for cells in _cells(reader, file):
        if not any(cell.strip() for cell in cells) or (columns.named and reader.line_num == 1):
            continue
        values = {name: cells[at].strip() for name, at in columns.at.items() if at < len(cells)}
        if not values.get("path") or not values.get("label"):
            raise DataError("a line needs a path and a label", where=f"{file}:{reader.line_num}")
        yield Row(reader.line_num, **values)


def _cells(reader: Iterator[list[str]], file: Path) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise DataError(f"not a table: {error}", where=str(file)) from error


@dataclass(frozen=True)
class _Columns:
    """Position of each column, and whether the first line named them."""

    at: dict[str, int]
    named: bool


def _column_positions(head: Sequence[str]) -> _Columns:
    at = {name: head.index(word) for name, words in _COLUMNS.items() for word in words if word in head}
    if "path" in at and "label" in at:
        return _Columns(at, named=True)
    return _Columns({name: index for index, name in enumerate(_COLUMNS)}, named=False)
