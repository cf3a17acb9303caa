"""The published benchmarks: one table each in `catalogue.toml`, under the names and in the folders that CoOp uses."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ipo.errors import UnknownName

Layout = Literal["split", "variants", "imagenet", "numbered", "wnids", "domains", "classes"]


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Archive(_Row):
    """One file of a dataset's distribution."""

    file: str
    url: str = ""
    """Where it is downloaded from; empty where it has to be fetched by hand."""
    checksum: str = ""
    """`md5:...` or `sha256:...` as published; empty where none is."""
    into: str = ""
    """Folder below the dataset's that the content goes to."""
    strip: str = ""
    """Top folder of the archive that stands for the dataset's (or the `into`) folder itself."""
    optional: bool = False
    """Whether it is only needed where the published split file is missing."""
    by_hand: bool = False
    """Whether unpacking it takes more than this program does, so that it is only named in the manual steps."""
    inner: tuple[str, ...] = ()
    """Archives inside this one that are unpacked as well."""


class CatalogueEntry(_Row):
    """One dataset: where it lies, how it is read, what it should hold, and where it comes from."""

    name: str
    folder: str
    """Folder below the data root."""
    images: str
    """Folder below `folder` that split files give paths relative to."""
    markers: tuple[str, ...] = ()
    """Paths below `folder` of which one shows that the images are there; by default the image folder."""
    layout: Layout
    """Which reader of `ipo.data.benchmarks.layouts` reads it."""
    classes: int
    sizes: tuple[int, int, int] = (0, 0, 0)
    """Published numbers of train, val and test images; 0 where a split does not exist."""
    total: int = 0
    """Number of images, where there is no published split."""
    prompt: str = "a photo of a <CLASS>."
    """The hand-crafted prompt of the papers."""
    homepage: str
    licence: str
    split_file: str = ""
    split_drive_id: str = ""
    """Google Drive id of the split file that CoOp's authors publish."""
    split_hash: str = ""
    """Hash of the split file's content (`ipo.data.splits.split_hash`), where known."""
    archives: tuple[Archive, ...] = ()
    renames: Mapping[str, str] = {}
    """Class name by class folder, where they differ."""
    ignored: tuple[str, ...] = ()
    """Class folders that the benchmark leaves out."""
    domains: tuple[str, ...] = ()
    held_out: float = 0.0
    """Share of each class that is for testing, the rest for training, where 50/20/30 would leave too few to test on."""
    by_hand: str = ""
    """What has to be fetched by hand, and from where."""


def _read_catalogue() -> dict[str, CatalogueEntry]:
    tables = tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))
    return {name: CatalogueEntry.model_validate({"name": name, **table}) for name, table in tables.items()}


CATALOGUE: Mapping[str, CatalogueEntry] = _read_catalogue()
"""Every benchmark by its name, in the order of tables."""


def catalogue_entry(name: str) -> CatalogueEntry:
    """The row of a dataset. Raises `UnknownName`, which lists the known ones and the forms for one's own data."""
    if name not in CATALOGUE:
        raise UnknownName("dataset", name, CATALOGUE, "Or folder:PATH, csv:FILE, hf:NAME, wds:SHARDS")
    return CATALOGUE[name]
