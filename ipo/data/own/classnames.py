"""Plain-word names for the classes of one's own data: a map from label to name, and what a name must be."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from ipo.data.splits import readable_name
from ipo.errors import DataError
from ipo.store.inputs import read_json_input
from ipo.store.toml import read_toml

MAP_FILES = ("classnames.json", "classnames.toml")
"""Files beside the data that are read as a map."""


_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What moves a cursor or turns the direction of writing."""
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})


def named_classes(labels: Sequence[str], folder: Path, names_file: Path | None = None) -> list[str]:
    """The name of each label: as a map says (`names_file`, or one of `MAP_FILES` in `folder`), else the label itself.

    Raises `DataError` for a map with an unknown label, for names that are empty or that CLIP reads alike, since no
    prompt could tell their classes apart, and for names with control characters.
    """
    file = names_file or next((folder / name for name in MAP_FILES if (folder / name).is_file()), None)
    names = read_map(file) if file else {}
    unknown = sorted(set(names) - set(labels))
    if unknown:
        raise DataError(f"no class '{unknown[0]}'", where=str(file), remedy=f"Classes: {', '.join(labels[:10])}, ...")
    named = {label: names.get(label, label) for label in labels}
    _require_different(named, file or folder, _advice(file or folder / MAP_FILES[0], labels))
    return list(named.values())


def _advice(file: Path, labels: Sequence[str]) -> str:
    example = json.dumps(dict.fromkeys(labels[:1], "..."), ensure_ascii=False)
    return f"Name them in {file}, such as {example}, or in another file with --set data.names=FILE"


def _require_different(named: Mapping[str, str], where: Path, remedy: str) -> None:
    """Raise `DataError` for names (by label) that are empty, hold control characters, or are one to CLIP."""
    seen: dict[str, str] = {}
    for label, name in named.items():
        read = as_clip_reads(name)
        other = seen.setdefault(read, label)
        if _CONTROLS.search(" ".join(name.split())):
            what = f"the class name {name!a} holds a control character"
        elif not read:
            what = f"a class has no name: {label!a}"
        elif other == label:
            continue
        elif readable_name(named[other]) == readable_name(name):
            what = f"2 classes are named '{readable_name(name)}': '{other}' and '{label}'"
        else:
            what = f"CLIP reads 2 class names alike: '{named[other]}' and '{name}'"
        raise DataError(what, where=str(where), remedy=remedy)


def as_clip_reads(name: str) -> str:
    """A class name as CLIP's tokenizer cleans it, nearly: HTML unescaped, one form of each letter, blanks, lower case.

    Characters without a width, which no reader sees, are left out as well.
    """
    text = html.unescape(html.unescape(readable_name(name))).translate(_QUOTES)
    text = "".join(letter for letter in text if unicodedata.category(letter) not in ("Cc", "Cf") or letter.isspace())
    text = "".join(unicodedata.normalize("NFKC", letter) if _is_wide(letter) else letter for letter in text)
    return readable_name(text).lower()


def _is_wide(letter: str) -> bool:
    """Whether a letter is a full-width or half-width form, or a ligature, of others."""
    return "\uff00" <= letter <= "\uffef" or "\ufb00" <= letter <= "\ufb06"


def read_map(file: Path) -> Mapping[str, str]:
    """A JSON object or TOML table from label to name."""
    what = "class names"
    if file.suffix == ".toml":
        names: object = read_toml(file, what, DataError)
    else:
        names = read_json_input(file, what)
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise DataError("class names are not a map from label to name", where=str(file), remedy='Like {"n01": "cat"}')
    return names
