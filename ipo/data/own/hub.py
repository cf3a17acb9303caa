"""`hf:NAME`: Hugging Face datasets, from the hub or a local folder, through the extra `hub`."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from ipo.config import offline_by_environment
from ipo.data.formats import suffix_of
from ipo.data.own.load import split_named
from ipo.data.own.materialise import Writer, materialised
from ipo.data.own.tables import read_table
from ipo.data.types import Dataset
from ipo.errors import DataError, ModelError
from ipo.packages import extra_remedy, is_installed
from ipo.progress import track
from ipo.store.cache import cache_place
from ipo.store.files import write_atomic

INSTEAD = "Check the name and the connection, or give hf:FOLDER with its files"
"""What to do where a dataset cannot be had."""
_OPTIONS = ("config", "revision", "image", "label")
_log = logging.getLogger(__name__)


def read_hub(place: str, seed: int, names_file: Path | None = None) -> Dataset:
    """`hf:NAME`, with options such as `hf:org/name?config=small&label=fine_label`; or a folder saved by `datasets`.

    Its splits are used where there are a train and a test one; a validation split stays one, and without a test split
    30% of the training images become it. Unlabelled images (label -1) are left out. All is copied to the cache once;
    where the hub cannot be asked whether it changed, the last copy is used.
    """
    name, options = require_extra(place)
    table = _copied(name, options) if Path(name).expanduser().is_dir() else _from_the_hub(name, options)
    return replace(read_table(table, seed, names_file, source=f"hf:{name}"), name=Path(name).name)


def _from_the_hub(name: str, options: Mapping[str, str]) -> Path:
    """The table of a dataset of the hub, or of its last copy where the hub cannot be asked."""
    from ipo.net.hub import require_dataset

    key = hashlib.sha256(json.dumps([name, sorted(options.items())]).encode()).hexdigest()[:16]
    last = cache_place("hf", f"last-{key}.txt")
    try:
        if offline_by_environment():
            raise ModelError(
                "IPO_OFFLINE forbids to ask the hub", where=f"hf:{name}", remedy=f"Unset it. Or: {INSTEAD}"
            )
        require_dataset(name, options.get("revision"), instead=INSTEAD)
    except ModelError as error:
        if not last.is_file() or not (table := Path(last.read_text(encoding="utf-8"))).is_file():
            raise DataError(error.what, where=error.where, remedy=error.remedy) from error
        _log.warning("the last copy of hf:%s is used: %s", name, error.what)
        return table
    table = _copied(name, options)
    write_atomic(last, str(table))
    return table


def _copied(name: str, options: Mapping[str, str]) -> Path:
    """The table of a dataset that the library can load, copied unless it was."""
    splits = {key: split for key, split in _load(name, options).items() if split_named(key)}
    if not splits:
        raise DataError("no split is called train, validation or test", where=f"hf:{name}")
    columns = _columns(next(iter(splits.values())).features, options, name)
    prints = [f"{key}={split._fingerprint}" for key, split in splits.items()]
    identity = "\n".join((name, *prints, *columns))
    return materialised("hf", name, identity, [], partial(_copy, splits, *columns))


def require_extra(place: str) -> tuple[str, dict[str, str]]:
    """Name and options of `hf:NAME?OPTION=VALUE`. Raises `DataError` for a wrong option, and without `datasets`."""
    name, _, query = place.partition("?")
    options = dict(parse_qsl(query))
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise DataError(f"unknown option '{unknown[0]}'", where=f"hf:{place}", remedy=f"Known: {', '.join(_OPTIONS)}")
    if not is_installed("datasets"):
        raise _no_extra()
    return name, options


def _no_extra() -> DataError:
    return DataError("hf: datasets need an extra", remedy=extra_remedy("hub"))


def _load(name: str, options: Mapping[str, str]) -> Mapping[str, Any]:
    """The splits of a dataset by their names."""
    try:
        import datasets
    except ImportError as error:
        raise _no_extra() from error
    saved = Path(name).expanduser()
    try:
        if (saved / "dataset_dict.json").is_file() or (saved / "state.json").is_file():
            found = datasets.load_from_disk(str(saved))
        else:
            source = str(saved) if saved.is_dir() else name
            found = datasets.load_dataset(source, options.get("config"), revision=options.get("revision"))
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = f"Accept its licence at the hub, then set HF_TOKEN. Or: {INSTEAD}" if "gated" in reason else INSTEAD
        raise DataError(f"cannot load '{name}': {reason}", where=f"hf:{name}", remedy=remedy) from error
    return {"train": found} if isinstance(found, datasets.Dataset) else found


def _columns(features: Mapping[str, Any], options: Mapping[str, str], name: str) -> tuple[str, str]:
    """The columns of images and labels: as the options say, or the only ones that can be meant."""
    kinds = {column: type(feature).__name__ for column, feature in features.items()}
    images = [column for column, kind in kinds.items() if kind == "Image"]
    labels = [column for column, kind in kinds.items() if kind == "ClassLabel"]
    labels = [column for column in ("label", "labels") if column in kinds] or labels
    chosen = []
    for role, candidates in (("image", images), ("label", labels)):
        column = options.get(role) or (candidates[0] if len(candidates) == 1 else "")
        if column not in kinds:
            raise DataError(
                f"which column holds the {role}?",
                where=f"hf:{name}",
                remedy=f"Name it like hf:{name}?{role}=COLUMN. Columns: {', '.join(kinds)}",
            )
        chosen.append(column)
    return chosen[0], chosen[1]


def _copy(splits: Mapping[str, Any], image: str, label: str, writer: Writer) -> Mapping[str, str]:
    from datasets import Image as ImageFeature

    names: dict[str, str] = {}
    for key, split in splits.items():
        feature = split.features[label]
        names |= {str(number): text for number, text in enumerate(getattr(feature, "names", ()))}
        for row in track(split.cast_column(image, ImageFeature(decode=False)), key, len(split)):
            if row[label] in (None, -1):
                continue
            data = row[image]["bytes"] or Path(row[image]["path"]).read_bytes()
            stored = writer.add_image(partial(io.BytesIO, data), suffix_of(data))
            writer.add_row(stored, str(row[label]), split_named(key) or "")
    return names
