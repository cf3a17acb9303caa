"""Plain-word names for the classes of one's own data: a map from label to name, and what a name must be."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ipo.data.splits import readable_name
from ipo.errors import DataError
from ipo.toml import parse_toml

MAP_FILES = ("classnames.json", "classnames.toml")
"""Files beside the data that are read as a map."""


def named_classes(labels: Sequence[str], folder: Path, names_file: Path | None = None) -> list[str]:
    """The name of each label: as a map says (`names_file`, or one of `MAP_FILES` in `folder`), else the label itself.

    Raises `DataError` for a map with an unknown label, and for names that are empty or not unique, since no prompt
    could tell their classes apart.
    """
    file = names_file or next((folder / name for name in MAP_FILES if (folder / name).is_file()), None)
    names = read_map(file) if file else {}
    unknown = sorted(set(names) - set(labels))
    if unknown:
        raise DataError(f"no class '{unknown[0]}'", where=str(file), remedy=f"Classes: {', '.join(labels[:10])}, ...")
    named = [names.get(label, label) for label in labels]
    shown = Counter(readable_name(name) for name in named)
    for name, count in shown.items():
        if not name or count > 1:
            problem = f"{count} classes are named '{name}'" if name else "a class has no name"
            raise DataError(problem, where=str(file or folder), remedy=f"Name them in {folder / MAP_FILES[0]}")
    return named


def read_map(file: Path) -> Mapping[str, str]:
    """A JSON object or TOML table from label to name."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        names = parse_toml(text) if file.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read class names: {error}", where=str(file)) from error
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise DataError("class names are not a map from label to name", where=str(file), remedy='Like {"n01": "cat"}')
    return names
