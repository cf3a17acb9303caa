"""A table of one's own pictures: paths, labels, and perhaps splits and domains."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ipo.data.own.classnames import named_classes
from ipo.data.own.load import own_dataset, split_named, with_test
from ipo.data.splits import SPLITS, Parts, seeded_split
from ipo.data.types import Dataset, Item
from ipo.errors import DataError
from ipo.store.inputs import read_input

_COLUMNS = {
    "path": ("path", "image", "file", "filename", "image_path"),
    "label": ("label", "class", "classname", "category"),
    "split": ("split", "subset"),
    "domain": ("domain",),
}


_MOST_DIGITS = 1000
"""A label with more is a text: Python turns no text of thousands of digits into a number."""


def require_table(place: str) -> Path:
    """The file of `csv:FILE`. Raises `DataError` where there is none."""
    file = Path(place).expanduser()
    if not file.is_file():
        what = "it is a folder, not a file" if file.is_dir() else "no such file"
        remedy = "Write csv:FILE with columns path and label"
        raise DataError(f"cannot read table: {what}", where=str(file), remedy=remedy)
    return file


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    line: int
    path: str
    labels: tuple[str, ...]
    """One, or in a table of pictures with several labels all of the picture."""
    split: str = ""
    domain: str = ""


def read_csv(place: str, seed: int, names_file: Path | None = None, *, multi_label: bool = False) -> Dataset:
    """`csv:FILE`: columns path and label, and perhaps split and domain; commas, semicolons or tabs between them.

    A first line with these words names the columns; without it they are taken in this order. Paths are relative to
    the table. Labels that are all integers are ordered as such, others by ASCII. Errors name the line.

    With `multi_label` the labels of a picture stand in one line, with | or ; between them, or in several, or both. Then
    a tab or a comma in the first line separates columns, and a semicolon only where there is neither.
    """
    file = require_table(place)
    return read_table(file, seed, names_file, source=f"table ({file.name})", multi_label=multi_label)


def read_table(file: Path, seed: int, names_file: Path | None, source: str, *, multi_label: bool = False) -> Dataset:
    """The table that `read_csv` describes; `source` says where its splits come from."""
    rows = list(_rows(file, multi_label))
    rows = _joined(rows, file) if multi_label else rows
    labels = in_label_order(label for row in rows for label in row.labels)
    names = named_classes(labels, file.parent, names_file)
    items = _items(file, rows, labels, multi_label)
    if not any(row.split for row in rows):
        dataset = own_dataset(file.stem, file.parent, names, seeded_split(items, seed), f"seeded ({seed})")
        return replace(dataset, notes=_listed_twice(rows))
    parts: Parts = {split: [] for split in SPLITS}
    for row, item in zip(rows, items, strict=True):
        split = split_named(row.split)
        if split is None:
            raise DataError(f"no split '{row.split}'", where=f"{file}:{row.line}", remedy="Use train, val or test")
        parts[split].append(item)
    dataset = own_dataset(file.stem, file.parent, names, *with_test(parts, source, seed))
    return replace(dataset, notes=_listed_twice(rows))


def _items(file: Path, rows: Sequence[Row], labels: Sequence[str], multi_label: bool) -> list[Item]:
    """A picture a row; of several labels the rarest stands for it where splits are drawn, the first of equals."""
    position = {label: index for index, label in enumerate(labels)}
    counts = Counter(position[label] for row in rows for label in row.labels)
    items = []
    for row in rows:
        own = tuple(sorted(position[label] for label in row.labels))
        rarest = min(own, key=lambda label: (counts[label], label))
        items.append(Item(_existing(file, row), rarest, row.domain, own if multi_label else ()))
    return items


def _joined(rows: Iterable[Row], file: Path) -> list[Row]:
    """One row a picture, with the labels of all its lines. Raises `DataError` where their splits or domains differ."""
    joined: dict[str, Row] = {}
    for row in rows:
        place = os.path.normpath(row.path)
        first = joined.setdefault(place, row)
        if (first.split, first.domain) != (row.split, row.domain):
            what = f"'{row.path}' has another split or domain than in line {first.line}"
            raise DataError(what, where=f"{file}:{row.line}", remedy="Give a picture one split and one domain")
        joined[place] = replace(first, labels=tuple(dict.fromkeys((*first.labels, *row.labels))))
    return list(joined.values())


def _listed_twice(rows: Iterable[Row]) -> tuple[str, ...]:
    """A note of pictures in two lines: they could be learned from and tested on, or be of two classes."""
    first: dict[str, Row] = {}
    again = [(first.setdefault(os.path.normpath(row.path), row), row) for row in rows]
    twice = [(one, two) for one, two in again if one is not two]
    if not twice:
        return ()
    one, two = twice[0]
    lines = "line lists" if len(twice) == 1 else "lines list"
    what = f"{len(twice)} {lines} a picture again, such as {two.path} in lines {one.line} and {two.line}"
    return (f"{what}; it may be in two splits or classes, which `ipo datasets check` looks at",)


def in_label_order(labels: Iterable[str]) -> list[str]:
    """Labels without repetition: by number if all are integers, else by ASCII."""
    unique = set(labels)
    numeric = all(label.isdecimal() and len(label) <= _MOST_DIGITS for label in unique)
    return sorted(unique, key=lambda label: (int(label) if numeric else 0, label))


def _existing(file: Path, row: Row) -> Path:
    path = file.parent / row.path
    if not path.is_file():
        raise DataError(f"no image '{row.path}'", where=f"{file}:{row.line}", remedy="Paths are relative to the table")
    return path


def _rows(file: Path, multi_label: bool) -> Iterator[Row]:
    text = read_input(file, "table")
    head = text.partition("\n")[0]
    delimiter = max("\t,;", key=lambda mark: mark in head) if multi_label else max(",;\t", key=head.count)
    columns = _column_positions([cell.strip().lower() for cell in head.split(delimiter)])
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    for cells in _cells(reader, file):
        if not any(cell.strip() for cell in cells) or (columns.named and reader.line_num == 1):
            continue
        values = {name: cells[at].strip() for name, at in columns.at.items() if at < len(cells)}
        label = values.pop("label", "")
        labels = tuple(filter(None, map(str.strip, re.split("[;|]", label)))) if multi_label else (label,)
        if not values.get("path") or not any(labels):
            raise DataError("a line needs a path and a label", where=f"{file}:{reader.line_num}")
        yield Row(reader.line_num, values.pop("path"), labels, **values)


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
