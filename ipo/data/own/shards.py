"""`wds:SHARDS`: WebDataset shards, tar files in which `KEY.jpg` and `KEY.cls` are an image and its label."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO

from ipo.data.archives import BROKEN_ARCHIVE, is_archive, members
from ipo.data.folders import is_dropping, is_image
from ipo.data.formats import HEIF_SUFFIXES, IMAGE_SUFFIXES
from ipo.data.own.load import split_named
from ipo.data.own.materialise import Writer, identity_of, materialised
from ipo.data.own.tables import read_table
from ipo.data.types import Dataset
from ipo.errors import DataError
from ipo.progress import track
from ipo.store.inputs import read_input

_LABEL_SUFFIXES = (".cls", ".json", ".txt")
_NAMES = "classnames.txt"
_LONGEST_LABEL = 1 << 16
_KEYS = f"Its image needs the ending of one ({' '.join(sorted(IMAGE_SUFFIXES))}) right behind a key without dots"


def read_shards(place: str, seed: int, names_file: Path | None = None) -> Dataset:
    """`wds:SHARDS`: a tar file, a pattern of file names (`*`, `{000..012}`), or a folder of tar files.

    The label is in `KEY.cls`, in `label` or `cls` of `KEY.json`, or in `KEY.txt`; class names are in `classnames.txt`
    beside the shards or one folder above, a line a class. A folder may have `train/`, `val/` and `test/`; otherwise the
    split is seeded. The images are copied to the cache once.
    """
    shards = require_shards(place)
    files = [shard for shard, _ in shards]
    splits = {split: shard for shard, split in shards}
    if "" in splits and len(splits) > 1:
        remedy = "Move it into one of them, or give a pattern of shards"
        raise DataError("a shard beside the folders of the splits", where=str(splits[""]), remedy=remedy)
    name = Path(place).stem if Path(place).is_file() else files[0].parent.name
    names = _names_beside(files[0])
    identity = "\n".join((identity_of([*files, *names]), *(split for _, split in shards)))
    table = materialised("wds", name, identity, files, partial(_copy_shards, shards))
    return replace(read_table(table, seed, names_file, source="shards"), name=name)


def require_shards(place: str) -> list[tuple[Path, str]]:
    """All that `find_shards` finds. Raises `DataError` where that is nothing."""
    shards = list(find_shards(place))
    if not shards:
        raise DataError("no shards found", where=place, remedy="Give a tar file, a pattern, or a folder of tar files")
    return shards


def find_shards(place: str) -> Iterator[tuple[Path, str]]:
    """Each shard, sorted, with the split whose folder it is in (empty if it is in none)."""
    folder = Path(place).expanduser()
    if not folder.is_dir():
        for name in _braces(folder.name):
            yield from ((path, "") for path in sorted(folder.parent.glob(name)) if path.is_file())
        return
    for path in sorted(folder.rglob("*")):
        if path.is_file() and is_archive(path) and not is_dropping(path.name):
            inside = path.relative_to(folder).parts[0] if path.parent != folder else ""
            yield path, split_named(inside) or ""


def _braces(pattern: str) -> list[str]:
    """`a{08..10}` as a08, a09, a10."""
    match = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not match:
        return [pattern]
    width = len(match[1])
    numbers = range(int(match[1]), int(match[2]) + 1)
    return [f"{pattern[: match.start()]}{number:0{width}d}{pattern[match.end() :]}" for number in numbers]


def _copy_shards(shards: Sequence[tuple[Path, str]], writer: Writer) -> Mapping[str, str]:
    for shard, split in track(shards, "shards"):
        try:
            _copy_shard(shard, split, writer)
        except BROKEN_ARCHIVE as error:
            raise DataError(f"shard is broken: {error}", where=str(shard), remedy="Fetch it again") from error
    lines = [line.strip() for file in _names_beside(shards[0][0]) for line in _lines(file)]
    return {str(label): line for label, line in enumerate(lines) if line}


def _names_beside(shard: Path) -> list[Path]:
    """The list of class names of a shard, beside it or one folder above; none or one."""
    places = (shard.parent / _NAMES, shard.parent.parent / _NAMES)
    return [path for path in places if path.is_file()][:1]


def _lines(file: Path) -> list[str]:
    return read_input(file, "class names").splitlines()


def _copy_shard(shard: Path, split: str, writer: Writer) -> None:
    """Join the images and labels of one shard by their keys: all of a name up to its first dot."""
    images: dict[str, str] = {}
    labels: dict[str, str] = {}
    others: dict[str, str] = {}
    taken: set[tuple[str, str]] = set()
    for name, is_folder, opened in members(shard):
        folder, slash, file = name.rpartition("/")
        stem, _, ending = file.partition(".")
        key, suffix = f"{folder}{slash}{stem}", f".{ending.lower()}"
        if is_folder or any(is_dropping(part) for part in name.split("/") if part not in (".", "..")):
            continue
        if (key, suffix) in taken or (suffix in IMAGE_SUFFIXES and key in images):
            raise _bad_sample(key, "occurs twice", shard, "Give every sample a key of its own, with one image")
        taken.add((key, suffix))
        if suffix in IMAGE_SUFFIXES:
            images[key] = writer.add_image(opened, suffix)
        elif suffix not in _LABEL_SUFFIXES:
            others.setdefault(key, suffix)
        elif suffix == ".cls" or key not in labels:
            label = sample_label(opened, suffix)
            labels |= {key: label} if label else {}
    for key, suffix in (others | {key: ".cls" for key, suffix in taken if suffix == ".cls"}).items():
        if key not in images and (suffix == ".cls" or is_image(Path(suffix)) or suffix in HEIF_SUFFIXES):
            raise _bad_sample(key, f"has no image, but {suffix}", shard, _KEYS)
    for key, image in images.items():
        if key not in labels:
            raise _bad_sample(key, "has no label", shard, "It needs .cls, .json or .txt")
        writer.add_row(image, labels[key], split)


def _bad_sample(key: str, problem: str, shard: Path, remedy: str) -> DataError:
    return DataError(f"sample '{key}' {problem}", where=str(shard), remedy=remedy)


def sample_label(opened: Callable[[], IO[bytes]], suffix: str) -> str:
    """The label in a file of a sample; empty if it holds none."""
    with opened() as source:
        text = source.read(_LONGEST_LABEL).decode("utf-8", "replace").strip()
    if suffix != ".json":
        return text
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    found = [fields[name] for name in ("label", "cls") if isinstance(fields, dict) and name in fields]
    return str(found[0]) if found else ""
