"""A dataset by its name or its place: `caltech101`, `folder:PATH`, `csv:FILE`, `hf:NAME`, `wds:SHARDS`, a bare path."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ipo.data.benchmarks.catalogue import CATALOGUE, CatalogueEntry, catalogue_entry
from ipo.data.benchmarks.layouts import Place, read_layout
from ipo.data.benchmarks.locate import data_root, find_split_file, locate, missing_part, require_located
from ipo.data.own.hub import read_hub, require_extra
from ipo.data.own.load import read_folder, require_folder
from ipo.data.own.shards import read_shards, require_shards
from ipo.data.own.tables import read_csv, require_table
from ipo.data.splits import assemble, split_hash
from ipo.data.types import Dataset, Item
from ipo.errors import ConfigError, UnknownName

_log = logging.getLogger(__name__)

OWN_KINDS: Mapping[str, Callable[[str, int, Path | None], Dataset]] = {
    "folder": read_folder,
    "csv": read_csv,
    "hf": read_hub,
    "wds": read_shards,
}
"""Readers of one's own data by the word in front of the colon."""

_PLACE_CHECKS: Mapping[str, Callable[[str], object]] = {
    "folder": require_folder,
    "csv": require_table,
    "hf": require_extra,
    "wds": require_shards,
}
"""What can be said of their places without reading anything."""


def load_dataset(
    spec: str,
    root: Path | None = None,
    *,
    seed: int = 1,
    domains: Sequence[str] = (),
    names_file: Path | None = None,
    multi_label: bool = False,
) -> Dataset:
    """The dataset that `spec` names, with its splits; `seed` draws a split where none is published or given.

    `root` holds the catalogue's datasets (by default IPO_DATA, or a cache folder). `domains` keeps some domains only.
    `names_file` maps the classes of one's own data to names; by default, a classnames.json or .toml beside them does.
    `multi_label` reads several labels a picture, which tables alone have. What lay beside the images and was passed
    over is logged. Raises `DataError` if it is missing or broken, `UnknownName` for an unknown dataset or domain.
    """
    dataset = read_dataset(spec, root, seed=seed, domains=domains, names_file=names_file, multi_label=multi_label)
    for note in (*dataset.overlaps, *dataset.notes):
        _log.warning("%s: %s", dataset.name, note)
    return dataset


def read_dataset(
    spec: str,
    root: Path | None = None,
    *,
    seed: int = 1,
    domains: Sequence[str] = (),
    names_file: Path | None = None,
    multi_label: bool = False,
) -> Dataset:
    """`load_dataset` without the log: who calls it shows the notes of the dataset."""
    spec = require_known(spec)
    kind, colon, place = spec.partition(":")
    if multi_label:
        require_multi_label(spec)
        dataset = read_csv(place, seed, names_file, multi_label=True)
    elif colon:
        dataset = OWN_KINDS[kind](place, seed, names_file)
    else:
        entry = catalogue_entry(spec)
        dataset = read_entry(entry, locate(entry, data_root(root)), seed)
    return in_domains(dataset, domains) if domains else dataset


def require_known(spec: str) -> str:
    """The spec with its kind. Raises `ConfigError` or `UnknownName` where it names no dataset; files are not read."""
    if not spec:
        remedy = "Give --dataset: a name that `ipo datasets` lists, or folder:PATH, csv:FILE, hf:NAME, wds:SHARDS"
        raise ConfigError("no dataset is named", remedy=remedy)
    spec = with_kind(spec)
    kind, colon, _ = spec.partition(":")
    if not colon:
        catalogue_entry(spec)
    elif kind not in OWN_KINDS:
        raise UnknownName("kind of dataset", kind, OWN_KINDS, "Or a name of the catalogue (`ipo datasets`)")
    return spec


def require_multi_label(spec: str) -> None:
    """Raise `ConfigError` for a dataset that has one label a picture: all but tables."""
    if require_known(spec).partition(":")[0] != "csv":
        what = f"data.metric=map is for several labels a picture, and '{spec}' has one"
        raise ConfigError(what, remedy="Give csv:FILE, with | or ; between the labels of a picture")


def with_kind(spec: str) -> str:
    """The spec; a path that was given bare, and is no name of the catalogue, has what lies there in front of it."""
    path = Path(spec).expanduser()
    if not spec or spec in CATALOGUE or spec.partition(":")[0] in OWN_KINDS:
        return spec
    if not path.exists():
        if path.name != spec:  # it was meant as a path
            raise ConfigError("this folder or file is not there", where=spec, remedy="Give the place of your pictures")
        return spec
    if path.is_dir():
        return f"folder:{spec}"
    kind = {".csv": "csv", ".tsv": "csv", ".tar": "wds"}.get(path.suffix.lower())
    if kind is None:
        remedy = "Give a folder, a table (.csv, .tsv) or a shard (.tar)"
        raise ConfigError("this file is no dataset", where=spec, remedy=remedy)
    return f"{kind}:{spec}"


def target_parts(spec: str) -> tuple[str, str]:
    """Dataset and domain of `NAME@DOMAIN`; the domain is empty where none is named. `ConfigError` without a name."""
    name, at, domain = spec.rpartition("@")
    whole = not at or "/" in domain or Path(spec.partition(":")[2] or spec).expanduser().exists()
    if not (spec if whole else name):
        raise ConfigError(f"the target '{spec}' names no dataset", remedy="Write --target NAME, or NAME@DOMAIN")
    return (spec, "") if whole else (name, domain)


def require_there(spec: str, root: Path | None = None, domains: Sequence[str] = ()) -> None:
    """Raise where a dataset, or a domain of it, cannot be there. Names and places are looked at, and nothing is read.

    What only a table says, such as the domains of `csv:FILE`, is left to its reading.
    """
    spec = require_known(spec)
    kind, colon, place = spec.partition(":")
    if not colon:
        entry = catalogue_entry(spec)
        require_located(entry, data_root(root))
        _require_domains(spec, domains, entry.domains)
        return
    _PLACE_CHECKS[kind](place)
    if kind != "csv":
        _require_domains(spec, domains, ())


def _require_domains(name: str, domains: Sequence[str], known: Collection[str]) -> None:
    if domains and not known:
        remedy = "Leave the domain out: --domains, or @DOMAIN of a --target"
        raise ConfigError(f"dataset '{name}' has no domains", remedy=remedy)
    for domain in domains:
        if domain not in known:
            raise UnknownName("domain", domain, known)


def dataset_states(root: Path | None = None) -> dict[str, str]:
    """What is missing of each dataset of the catalogue, by its name; empty where it can be loaded."""
    place = data_root(root)
    return {name: missing_part(entry, place) for name, entry in CATALOGUE.items()}


def load_listing(spec: str, root: Path | None = None, split_file: Path | None = None, *, seed: int = 1) -> Dataset:
    """The dataset for drawing from, whose images need not be there if it has a split file (by default, the found one).

    `root` of the result is then where the images would be.
    """
    spec = require_known(spec)
    known = None if ":" in spec else catalogue_entry(spec)
    if split_file and (known is None or known.layout != "split"):
        what = f"--split-file is for datasets with a split file of CoOp's, which '{spec}' has not"
        raise ConfigError(what, where=str(split_file), remedy="Leave it out")
    if known is None:
        return load_dataset(spec, root, seed=seed)
    entry, place = known, data_root(root)
    split_file = split_file or find_split_file(entry, place)
    if split_file is None or entry.layout != "split":
        return load_dataset(spec, root, seed=seed)
    return read_entry(entry, Place(place / entry.folder, split_file), seed)


def read_entry(entry: CatalogueEntry, place: Place, seed: int) -> Dataset:
    """A catalogue dataset at a known place."""
    reading = read_layout(entry, place, seed)
    dataset = assemble(
        entry.name, reading.images, reading.classnames, reading.parts, prompt=entry.prompt, source=reading.source
    )
    if place.split_file and entry.split_hash and dataset.split_hash != entry.split_hash:
        return replace(dataset, split_source=f"own file ({place.split_file.name}, not the published one)")
    return dataset


def in_domains(dataset: Dataset, domains: Sequence[str]) -> Dataset:
    """The dataset with the images of some domains only. All classes stay, and so do their labels."""
    known = {item.domain for item in (*dataset.train, *dataset.val, *dataset.test)} - {""}
    _require_domains(dataset.name, domains, known)
    train, val, test = (_of_domains(items, domains) for items in (dataset.train, dataset.val, dataset.test))
    digest = split_hash(dataset.root, (train, val, test))
    return replace(dataset, train=train, val=val, test=test, split_hash=digest)


def _of_domains(items: Sequence[Item], domains: Sequence[str]) -> tuple[Item, ...]:
    return tuple(item for item in items if item.domain in domains)
