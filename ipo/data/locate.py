"""Where a benchmark lies below a data root: its folder, or its archives, which are then unpacked in the cache, once."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ipo.config import cache_folder
from ipo.data.archives import disk_error, is_archive, landing, locked, unpack
from ipo.data.catalogue import Archive, CatalogueEntry
from ipo.data.layouts import Place
from ipo.errors import DataError


def data_root(root: Path | None = None) -> Path:
    """The folder that holds the datasets: `root`, else IPO_DATA, else `datasets` in the cache folder."""
    if root is not None:
        return root.expanduser()
    named = os.environ.get("IPO_DATA")
    return Path(named).expanduser() if named else cache_folder() / "datasets"


def locate(entry: CatalogueEntry, root: Path) -> Place:
    """Where the dataset is. The data root itself is only read: archives lying there are unpacked in the cache.

    Raises `DataError` naming what is missing, where it was looked for, and the command that prepares it.
    """
    folders = search_folders(entry, root)
    split_file = find_split_file(entry, root)
    for folder in folders:
        if is_present(entry, folder):
            return Place(folder, split_file, (*folders, root / "imagenet"))
    archives = lying_archives(entry, root)
    if archives:
        folder = _unpacked(entry, archives)
        if is_present(entry, folder):
            return Place(folder, split_file or _existing(folder / entry.split_file), (*folders, root / "imagenet"))
    raise DataError(
        f"dataset '{entry.name}' is not there: no {' or '.join(markers(entry))}",
        where=" or ".join(str(folder) for folder in folders),
        remedy=f"Run `ipo datasets prepare {entry.name}`, or give its place with --data-root",
    )


def search_folders(entry: CatalogueEntry, root: Path) -> list[Path]:
    """Folders that may be the dataset's: below the root, or the root itself where it bears the dataset's name."""
    return [root / entry.folder, *([root] if root.name == entry.folder else [])]


def markers(entry: CatalogueEntry) -> tuple[str, ...]:
    """Paths below the dataset's folder of which one shows that it is there."""
    return entry.markers or (entry.images,)


def is_present(entry: CatalogueEntry, folder: Path) -> bool:
    """Whether the folder holds the dataset's images."""
    return any((folder / marker).is_dir() for marker in markers(entry))


def find_split_file(entry: CatalogueEntry, root: Path) -> Path | None:
    """The dataset's published split file in its folder, in `splits/` or in the root; None if there is none."""
    if not entry.split_file:
        return None
    folders = (*search_folders(entry, root), root / "splits", root)
    return next((found for folder in folders if (found := _existing(folder / entry.split_file))), None)


def _existing(file: Path) -> Path | None:
    return file if file.is_file() else None


def lying_archives(entry: CatalogueEntry, root: Path) -> dict[Path, Archive]:
    """The dataset's archives in its folder; in the root itself only those that bear the folder's name."""
    folders = search_folders(entry, root)
    found: dict[Path, Archive] = {}
    for archive in entry.archives:
        for name in (archive.file, *archive.inner):
            places = [folder / name for folder in folders]
            if entry.folder in name:
                places.append(root / name)
            file = next((place for place in places if place.is_file() and is_archive(place)), None)
            if file is not None:
                found[file] = archive
                break
    return found


def _unpacked(entry: CatalogueEntry, archives: Mapping[Path, Archive]) -> Path:
    stats = ((file.resolve(), file.stat()) for file in archives)
    identity = "\n".join(f"{file}\t{stat.st_size}\t{stat.st_mtime_ns}" for file, stat in stats)
    key = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    folder = cache_folder() / "unpacked" / f"{entry.name}-{key}"
    if not folder.is_dir():
        with locked(folder):
            if not folder.is_dir():
                with landing(folder) as staged:
                    unpack_bundle(archives, staged)
    return folder


def unpack_bundle(archives: Mapping[Path, Archive], folder: Path) -> None:
    """Unpack the archives of one dataset, and the archives inside them, into its folder; copy what is no archive."""
    for file, archive in archives.items():
        target = folder / archive.into
        target.mkdir(parents=True, exist_ok=True)
        if not is_archive(file):
            _copy(file, target / archive.file)
            continue
        unpack(file, target)
        if archive.strip:
            _lift(target / archive.strip, target)
        for name in archive.inner:
            if (target / name).is_file():
                unpack(target / name, target)
                (target / name).unlink()


def _copy(file: Path, target: Path) -> None:
    try:
        shutil.copyfile(file, target)
    except OSError as error:
        raise disk_error(error, file) from error


def _lift(inner: Path, target: Path) -> None:
    """Move what lies in `inner` up to `target`, whose subfolder it is."""
    if inner.is_dir():
        for path in list(inner.iterdir()):
            path.rename(target / path.name)
