"""Splits: published split files read as they are, seeded splits where there is none, and the hash that names one."""

from __future__ import annotations

import hashlib
import random
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ipo.data.types import Dataset, Item, Split
from ipo.errors import DataError
from ipo.store.inputs import read_json_input

Parts = dict[Split, list[Item]]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
TRAIN_SHARE, VAL_SHARE = 0.5, 0.2
"""CoOp's re-split: half of a class for training, a fifth for validation, the rest for testing."""


def read_split_file(file: Path, images: Path) -> tuple[list[str], Parts]:
    """Class names and items of a split file in CoOp's format: {"train": [[path, label, class name], ...], ...}.

    Paths are relative to `images`; whether the images exist is not looked at. Raises `DataError` for another format,
    a path that leaves the folder, a label with two names, and a gap in the labels.
    """
    rows = read_json_input(file, "split file", remedy="Check the path, or fetch it again")
    names: dict[int, str] = {}
    parts: Parts = {}
    try:
        for split in SPLITS:
            listed = [_split_row(row) for row in rows[split]]
            parts[split] = [Item(safe_path(images, path, file), label) for path, label, _ in listed]
            _collect_names(names, listed, file)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"not a split file: {error!r:.300}",
            where=str(file),
            remedy='It should hold {"train": [[path, label, class name], ...], "val": ..., "test": ...}',
        ) from error
    if set(names) != set(range(len(names))):
        raise DataError(f"labels are not 0 to {len(names) - 1} without gaps", where=str(file))
    return [names[label] for label in range(len(names))], parts


def _split_row(row: object) -> tuple[str, int, str]:
    """A row of a split file. Raises `TypeError`; a truth value is no label, and neither is 1.5."""
    match row:
        case [str(path), int(label), str(name)] if not isinstance(label, bool) and "\0" not in path:
            return path, label, name
    raise TypeError(f"[path, label, class name] expected, not {row!r:.100}")


def _collect_names(names: dict[int, str], rows: Sequence[tuple[str, int, str]], file: Path) -> None:
    for _, label, name in rows:
        if names.setdefault(label, name) != name:
            raise DataError(f"label {label} is both '{names[label]}' and '{name}'", where=str(file))


def safe_path(folder: Path, relative: str, source: Path) -> Path:
    """`folder / relative`; raises `DataError` naming `source` if that would lie outside the folder."""
    if relative.startswith("/") or ".." in relative.split("/"):
        raise DataError(f"path '{relative}' leaves the image folder", where=str(source))
    return folder / relative


def seeded_split(items: Iterable[Item], seed: int) -> Parts:
    """50/20/30 of each class (of each domain), drawn with `seed`.

    One image of a class goes to training, the second to testing; from three on each split has at least one. A class
    is drawn by itself, so that pictures added to one leave the others as they are. A picture with several labels goes
    with the rarest of them, so that rare classes are in every split.
    """
    parts: Parts = {split: [] for split in SPLITS}
    for (label, domain), own in _by_class(items).items():
        random.Random(f"{seed}/{domain}/{label}").shuffle(own)
        train = max(1, round(len(own) * TRAIN_SHARE))
        val = max(1, round(len(own) * VAL_SHARE)) if len(own) > 2 else 0
        train = min(train, max(1, len(own) - val - 1))
        parts["train"] += own[:train]
        parts["val"] += own[train : train + val]
        parts["test"] += own[train + val :]
    return parts


def hold_out(items: Iterable[Item], share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """Kept and held-out items: a `share` of each class, drawn with `seed`, at least one kept, none if it has one."""
    kept: list[Item] = []
    held: list[Item] = []
    for (label, domain), own in _by_class(items).items():
        random.Random(f"{seed}/{domain}/{label}").shuffle(own)
        count = min(max(1, round(len(own) * share)), len(own) - 1)
        held += own[:count]
        kept += own[count:]
    return kept, held


def _by_class(items: Iterable[Item]) -> dict[tuple[int, str], list[Item]]:
    groups: dict[tuple[int, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item.label, item.domain), []).append(item)
    return groups


def assemble(
    name: str,
    root: Path,
    classnames: Sequence[str],
    parts: Mapping[Split, Sequence[Item]],
    *,
    prompt: str,
    source: str,
    own: bool = False,
) -> Dataset:
    """The dataset with underscores of class names turned into spaces and its split hash."""
    train, val, test = (tuple(parts.get(split, ())) for split in SPLITS)
    readable = tuple(readable_name(classname) for classname in classnames)
    return Dataset(
        name=name,
        root=root,
        classnames=readable,
        train=train,
        val=val,
        test=test,
        hand_crafted_prompt=prompt,
        split_source=source,
        split_hash=split_hash(root, (train, val, test)),
        own=own,
    )


def readable_name(classname: str) -> str:
    """A class name as prompts hold it: spaces for underscores, and one way to write each accented letter (NFC)."""
    return unicodedata.normalize("NFC", " ".join(classname.replace("_", " ").split()))


def split_hash(root: Path, parts: Iterable[Sequence[Item]]) -> str:
    """sha256 over the split, relative path and label of every item, in order."""
    digest = hashlib.sha256()
    for split, items in zip(SPLITS, parts, strict=True):
        for item in items:
            digest.update(
                f"{split}\t{relative(item.path, root)}\t{item.label_text}\n".encode("utf-8", "surrogateescape")
            )
    return digest.hexdigest()


def relative(path: Path, root: Path) -> str:
    """The path below `root` with forward slashes; the whole path if it lies elsewhere."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
