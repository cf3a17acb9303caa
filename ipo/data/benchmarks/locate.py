"""Where a benchmark lies below a data root: its folder, or its archives, which are then unpacked in the cache, once."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ipo.data.archives import is_archive, unpack, verify
from ipo.data.benchmarks.catalogue import Archive, CatalogueEntry
from ipo.data.benchmarks.layouts import Place
from ipo.data.own.materialise import identity_of
from ipo.errors import DataError
from ipo.store.cache import cache_folder, cache_place, is_off, user_folder
from ipo.store.disk import writing
from ipo.store.folders import made_once


def data_root(root: Path | None = None) -> Path:
    """The folder that holds the datasets: `root`, else IPO_DATA, else `datasets` in the cache folder.

    Where the cache is switched off, it is in the user's cache folder: datasets are fetched to stay.
    """
    if root is not None:
        return root.expanduser()
    named = os.environ.get("IPO_DATA")
    return Path(named).expanduser() if named else (user_folder() if is_off() else cache_folder()) / "datasets"


def locate(entry: CatalogueEntry, root: Path) -> Place:
    """Where the dataset is. The data root itself is only read: archives lying there are unpacked in the cache.

    Raises `DataError` naming what is missing, where it was looked for, and the command that prepares it.
    """
    root = _above(entry, root)
    folder = root / entry.folder
    split_file = find_split_file(entry, root)
    beside = (folder, root / "imagenet")
    if is_present(entry, folder):
        return Place(folder, split_file, beside)
    archives = lying_archives(entry, [folder, root])
    if archives:
        unpacked = _unpacked(entry, archives)
        if is_present(entry, unpacked):
            return Place(unpacked, split_file or find_split_file(entry, unpacked), beside)
    raise _not_there(entry, root)


def require_located(entry: CatalogueEntry, root: Path) -> None:
    """Raise the error of `locate` where neither the dataset nor an archive of it is there; nothing is unpacked."""
    if missing_part(entry, root):
        raise _not_there(entry, _above(entry, root))


def _not_there(entry: CatalogueEntry, root: Path) -> DataError:
    return DataError(
        f"dataset '{entry.name}' is not there: no {' or '.join(markers(entry))}",
        where=str(root / entry.folder),
        remedy=f"Run `ipo datasets prepare {entry.name}`, or give its place with --data-root",
    )


def _above(entry: CatalogueEntry, root: Path) -> Path:
    """The data root, also where the dataset's own folder was given for it."""
    return root.parent if root.name == entry.folder and is_present(entry, root) else root


def missing_part(entry: CatalogueEntry, root: Path) -> str:
    """What keeps the dataset from being loaded from this root, in a few words; empty if it is there."""
    root = _above(entry, root)
    if is_present(entry, root / entry.folder) or lying_archives(entry, [root / entry.folder, root]):
        return ""
    return f"no {entry.folder}/{'|'.join(markers(entry))}"


def markers(entry: CatalogueEntry) -> tuple[str, ...]:
    """Paths below the dataset's folder of which one shows that it is there."""
    return entry.markers or (entry.images,)


def is_present(entry: CatalogueEntry, folder: Path) -> bool:
    """Whether the folder holds the dataset's images."""
    return any((folder / marker).is_dir() for marker in markers(entry))


def find_split_file(entry: CatalogueEntry, root: Path) -> Path | None:
    """The dataset's published split file in its folder, in `splits/` or in the root; None if there is none."""
    folders = (root / entry.folder, root / "splits", root)
    files = (folder / entry.split_file for folder in folders if entry.split_file)
    return next((file for file in files if file.is_file()), None)


def lying_archives(entry: CatalogueEntry, folders: Sequence[Path]) -> dict[Path, Archive]:
    """The dataset's archives in these folders; past the first one only those that bear the dataset's name."""
    found: dict[Path, Archive] = {}
    for archive in (row for row in entry.archives if not row.by_hand):
        names = [name for name in (archive.file, *archive.inner) if is_archive(Path(name))]
        places = [folders[0] / name for name in names]
        places += [folder / name for folder in folders[1:] for name in names if entry.folder in name]
        file = next((place for place in places if place.is_file()), None)
        if file is not None:
            found[file] = archive
    return found


def _unpacked(entry: CatalogueEntry, archives: Mapping[Path, Archive]) -> Path:
    key = hashlib.sha256(identity_of(list(archives)).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return made_once(cache_place("unpacked", f"{entry.name}-{key}"), partial(unpack_bundle, archives))


def unpack_bundle(archives: Mapping[Path, Archive], folder: Path) -> None:
    """Verify and unpack the archives of one dataset, and the archives inside them, into its folder."""
    for file, archive in archives.items():
        verify(file, archive.checksum if file.name == archive.file else "")
        target = folder / archive.into
        with writing(target, DataError):
            target.mkdir(parents=True, exist_ok=True)
            unpack(file, target)
            if (target / archive.strip).is_dir():
                _lift(target / archive.strip, target)
            for name in archive.inner:
                if (target / name).is_file():
                    unpack(target / name, target)
                    (target / name).unlink()


def _lift(inner: Path, target: Path) -> None:
    """Move what lies in `inner` up to `target`, some folders above it, and remove what is left of those folders."""
    if inner == target:
        return
    top = target / inner.relative_to(target).parts[0]
    shell = top.rename(target / f".{top.name}.unpacked")  # it may hold something of its own name
    for path in list((shell / inner.relative_to(top)).iterdir()):
        path.rename(target / path.name)
    shutil.rmtree(shell)
