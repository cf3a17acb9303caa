"""`descriptions.json`: texts about each class, as one JSON object from class name to a list of texts.

Files of this shape come with DCLIP (arXiv 2210.07183) and CuPL (arXiv 2209.03320). CLIP_benchmark has a level above it,
from the name of a dataset to such an object; that is read, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipo.errors import DataError
from ipo.prompt import one_line
from ipo.screen import counted
from ipo.store.files import write_json
from ipo.store.inputs import read_json_input

WHAT = "descriptions"
SHAPE = 'It holds {"class name": ["a text", ...], ...}; `ipo describe` writes such a file'
_NAMED = 5
"""So many classes are named in an error."""


@dataclass(frozen=True)
class Descriptions:
    """The texts of a file by class. A name is found in any case, and with underscores for spaces."""

    texts: Mapping[str, tuple[str, ...]]
    """By the key of a class name; a class may have none."""
    where: str = ""
    """The file, for errors."""
    digest: str = ""
    """sha256 over classes and texts."""

    @classmethod
    def of(cls, texts: Mapping[str, Iterable[str]], where: str = "") -> Descriptions:
        """Descriptions by class names as anybody writes them. Raises `DataError` for two classes of one name."""
        found: dict[str, tuple[str, ...]] = {}
        for name, own in texts.items():
            if name_key(name) in found:
                raise DataError(f"two classes are named '{name_key(name)}'", where=where, remedy="Rename one")
            found[name_key(name)] = tuple(text for text in map(clean, own) if text)
        content = json.dumps(found, sort_keys=True, ensure_ascii=False)
        return cls(found, where, hashlib.sha256(content.encode()).hexdigest())

    def __contains__(self, classname: str) -> bool:
        """Whether the file has this class, with texts or without."""
        return name_key(classname) in self.texts

    def __getitem__(self, classname: str) -> tuple[str, ...]:
        """The texts of a class. Raises `DataError` for one that the file lacks."""
        if classname not in self:
            self.require([classname], may_be_empty=True)
        return self.texts[name_key(classname)]

    def require(self, classnames: Sequence[str], *, may_be_empty: bool = False) -> None:
        """Raise `DataError` naming those of `classnames` that the file lacks, or else those without a text."""
        lacking = [name for name in classnames if name not in self]
        empty = [] if may_be_empty else [name for name in classnames if name in self and not self[name]]
        for names, fault in ((lacking, "missing"), (empty, "empty")):
            if names:
                what = f"descriptions of {len(names)} of {counted(len(classnames), 'class')} are {fault}: {_few(names)}"
                remedy = "Add them, or make the file anew with `ipo describe` for this dataset"
                raise DataError(what, where=self.where, remedy=remedy)


def name_key(classname: str) -> str:
    """What two spellings of a class name share that differ in case, spaces and underscores only."""
    return " ".join(classname.replace("_", " ").casefold().split())


def clean(text: str) -> str:
    """A text as one line, without brackets, invisible characters and halves of characters."""
    return one_line(text.encode("utf-8", "replace").decode()).strip()


def read_descriptions(path: Path, dataset: str = "") -> Descriptions:
    """The descriptions in a file, of `dataset` where it holds those of several.

    Raises `DataError` for a file that cannot be read or has another shape, naming the first class that is wrong.
    """
    content = read_json_input(path, WHAT)
    if isinstance(content, dict) and content and all(isinstance(value, dict) for value in content.values()):
        content = _of_dataset(content, dataset, path)
    if not isinstance(content, dict) or not content:
        what = "no class in it" if content == {} else f"{_kind(content)} instead of an object"
        raise DataError(f"cannot read {WHAT}: {what}", where=str(path), remedy=SHAPE)
    for name, texts in content.items():
        if fault := _fault(texts):
            raise DataError(f"cannot read {WHAT}: '{name}' has {fault}", where=str(path), remedy=SHAPE)
        if not name_key(name):
            raise DataError(f"cannot read {WHAT}: a class without a name", where=str(path), remedy=SHAPE)
    return Descriptions.of(content, str(path))


def write_descriptions(path: Path, texts: Mapping[str, Sequence[str]]) -> None:
    """Write the texts of each class, by the names that it is given. Raises `RunError`."""
    write_json(path, {name: list(own) for name, own in texts.items()})


def _of_dataset(content: dict[str, Any], dataset: str, path: Path) -> Any:
    """The part of a file that has a level for datasets."""
    if len(content) == 1 and not dataset:
        return next(iter(content.values()))
    if dataset not in content:
        what = f"cannot read {WHAT}: it holds those of {_few(content)}, and not of '{dataset}'"
        raise DataError(what, where=str(path), remedy="Give the file of this dataset, or take out its part")
    return content[dataset]


def _fault(texts: Any) -> str:
    """What is wrong with the value of a class; nothing where it is a list of texts."""
    if not isinstance(texts, list):
        return f"{_kind(texts)} instead of a list of texts"
    wrong = [text for text in texts if not isinstance(text, str)]
    return f"{_kind(wrong[0])} among its texts" if wrong else ""


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _few(names: Iterable[str]) -> str:
    every = [f"'{name}'" for name in names]
    return ", ".join(every[:_NAMED]) + (f" and {len(every) - _NAMED} more" if len(every) > _NAMED else "")
