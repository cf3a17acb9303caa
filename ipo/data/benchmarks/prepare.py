"""Bring a benchmark into its folder: unpack or download its archives, check them, and let them land in one piece."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlparse

from ipo.data.archives import is_archive
from ipo.data.benchmarks.accept import accept
from ipo.data.benchmarks.catalogue import Archive, CatalogueEntry, catalogue_entry
from ipo.data.benchmarks.layouts import Place
from ipo.data.benchmarks.locate import data_root, find_split_file, is_present, lying_archives, markers, unpack_bundle
from ipo.data.benchmarks.looks import build_looks
from ipo.data.benchmarks.stamps import build_stamps
from ipo.data.check import require_complete
from ipo.data.download import download
from ipo.data.load import read_entry
from ipo.data.splits import SPLITS, read_split_file, split_hash
from ipo.data.types import Dataset
from ipo.errors import DataError
from ipo.store.files import write_atomic
from ipo.store.folders import locked, staging

DRIVE_URL = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
"""Where Google Drive serves a file by its id."""

_BUILDERS: Mapping[str, Callable[[Path, Path | None], None]] = {"stamps": build_stamps, "looks": build_looks}
"""What puts together the datasets that come out of packages instead of archives."""


def prepare(name: str, root: Path | None = None, source: str | None = None, *, seed: int = 1) -> Dataset:
    """Put a catalogue dataset into its folder below `root` and return it.

    Images that are there already are only checked; a split file or list that they lack is fetched. `source` is an
    archive or a folder that holds the archives, as a path or `file:` address, or an `https:` address of an archive;
    without it, archives lying in the data root are used and the others downloaded. All is verified and counted
    before it takes its place. Raises `DataError`, with manual steps where a file cannot be had; what was there
    before stays as it was.
    """
    return prepare_entry(catalogue_entry(name), data_root(root), source, seed=seed)


def prepare_entry(entry: CatalogueEntry, root: Path, source: str | None = None, *, seed: int = 1) -> Dataset:
    """`prepare` for any row, in a catalogue or not."""
    folder = root / entry.folder
    with locked(folder):
        if is_present(entry, folder):
            return _completed(entry, root, source, seed)
        try:
            _build(entry, root, source, seed)
        finally:
            _remove_if_empty(folder)
        return read_entry(entry, Place(folder, find_split_file(entry, root), (root / "imagenet",)), seed)


def _completed(entry: CatalogueEntry, root: Path, source: str | None, seed: int) -> Dataset:
    """The dataset whose images are there, checked, after its missing split file and lists are fetched."""
    folder = root / entry.folder
    with staging(folder) as staged:
        _take_split_file(entry, root, source, staged)
        split_file = find_split_file(entry, root) or find_split_file(entry, staged)
        _fetch_lists(entry, root, source, split_file is not None)
        dataset = read_entry(entry, Place(folder, split_file, (root / "imagenet",)), seed)
        require_complete(entry, dataset)
        _move_in(entry, staged, folder)
    return dataset


def _build(entry: CatalogueEntry, root: Path, source: str | None, seed: int) -> None:
    """Stage the dataset beside its folder, check it there, and move it in."""
    folder = root / entry.folder
    fetched: list[Path] = []
    with staging(folder) as staged:
        _take_split_file(entry, root, source, staged)
        split_file = find_split_file(entry, root) or find_split_file(entry, staged)
        if entry.name in _BUILDERS:
            _BUILDERS[entry.name](staged, local_path(source) if source else None)
        else:
            given = _named_archives(entry, folder, source) if source else {}
            lying = lying_archives(entry, [folder, root])
            files = given | {file: row for file, row in lying.items() if row not in given.values()}
            fetched = _fetch_archives(entry, folder, files, split_file is not None)
            _fetch_lists(entry, root, source, split_file is not None)
            unpack_bundle(files, staged)
            split_file = split_file or find_split_file(entry, staged)
        require_complete(entry, read_entry(entry, Place(staged, split_file, (folder, root / "imagenet")), seed))
        _move_in(entry, staged, folder)
    for file in fetched:
        file.unlink()


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _move_in(entry: CatalogueEntry, staged: Path, folder: Path) -> None:
    """Move what was staged into the folder; the images come last, since they are what shows that it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    shown_by = {marker.partition("/")[0] for marker in markers(entry)}
    for path in sorted(staged.iterdir(), key=lambda path: path.name in shown_by):
        if not (folder / path.name).exists():
            path.rename(folder / path.name)


def _is_web(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def local_path(source: str) -> Path:
    """A path or a `file:` address as a path."""
    return Path(unquote(urlparse(source).path)) if source.startswith("file:") else Path(source).expanduser()


def _named_archives(entry: CatalogueEntry, folder: Path, source: str) -> dict[Path, Archive]:
    """The archives that `source` names: one by its address or path, or all of the dataset's in a folder."""
    if _is_web(source):
        name = unquote(source.partition("?")[0].rpartition("/")[2])
        row = _row_of(entry, name)
        return {download(source, folder / name, partial(accept, entry, row)): row}
    path = local_path(source)
    files = lying_archives(entry, [path]) if path.is_dir() else {path: _row_of(entry, path.name)}
    if not files or not (path.is_dir() or path.is_file()):
        names = ", ".join(archive.file for archive in entry.archives)
        raise DataError(f"no archive of '{entry.name}' here", where=str(path), remedy=f"Give one of: {names}")
    return files


def _row_of(entry: CatalogueEntry, file_name: str) -> Archive:
    """The row of an archive by its file name; a dataset's only archive may have any name."""
    rows = [row for row in entry.archives if file_name in (row.file, *row.inner)]
    archives = [row for row in entry.archives if is_archive(Path(row.file))]
    if not rows and len(archives) != 1:
        known = ", ".join(row.file for row in entry.archives)
        raise DataError(f"'{file_name}' is no archive of '{entry.name}'", remedy=f"Known: {known}")
    return (rows or archives)[0]


def _fetch_archives(entry: CatalogueEntry, folder: Path, files: dict[Path, Archive], have_split: bool) -> list[Path]:
    """Download the needed archives that are not among `files`, and add them; returns the new ones.

    Raises `DataError` with the manual steps, before any download, for those without a public address.
    """
    needed = [row for row in entry.archives if is_archive(Path(row.file)) and row not in files.values()]
    needed = [row for row in needed if not row.optional or (row.url and not have_split)]
    by_hand = [row for row in needed if not row.url]
    if by_hand:
        task = "fetched and unpacked" if any(row.by_hand for row in by_hand) else "fetched"
        names = ", ".join(row.file for row in by_hand)
        raise DataError(
            f"the images of '{entry.name}' have to be {task} by hand: {names}", remedy=manual_steps(entry, folder)
        )
    fetched = {_fetch(entry, row, folder): row for row in needed}
    files.update(fetched)
    return list(fetched)


def _fetch_lists(entry: CatalogueEntry, root: Path, source: str | None, have_split: bool) -> None:
    """Put the needed files that are no archives into their places: from beside `source`, or from their addresses.

    Lists of domains whose images are missing while others are there are left out. Raises `DataError` for a file that
    is there but cannot be the right one.
    """
    folder = root / entry.folder
    absent = [domain for domain in entry.domains if not (folder / domain).is_dir()] if is_present(entry, folder) else []
    unneeded = tuple(f"{domain}_" for domain in absent)
    for row in entry.archives:
        if is_archive(Path(row.file)) or (row.optional and have_split) or row.file.startswith(unneeded):
            continue
        target = folder / row.into / row.file
        places = (target, root / "imagenet" / row.file, _beside(source, row.file))
        file = next((place for place in places if place and place.is_file()), None)
        if file:
            accept(entry, row, file)
            if file == places[-1]:
                write_atomic(target, file.read_bytes())
        elif row.url:
            _fetch(entry, row, folder)


def _fetch(entry: CatalogueEntry, row: Archive, folder: Path) -> Path:
    try:
        return download(row.url, folder / row.into / row.file, partial(accept, entry, row))
    except DataError as error:
        raise DataError(
            error.what, where=error.where, remedy=f"{error.remedy}. {manual_steps(entry, folder)}"
        ) from error


def _beside(source: str | None, name: str) -> Path | None:
    """Where a file called `name` would lie beside the archives at `source`; None if that is no place on the disk."""
    if source is None or _is_web(source):
        return None
    path = local_path(source)
    return (path if path.is_dir() else path.parent) / name


def _take_split_file(entry: CatalogueEntry, root: Path, source: str | None, staged: Path) -> None:
    """Get the published split file: from beside `source`, or from its authors. Without it the split is seeded."""
    if not entry.split_file or find_split_file(entry, root):
        return
    beside = _beside(source, entry.split_file)
    if beside and beside.is_file():
        shutil.copyfile(beside, staged / entry.split_file)
        return
    if not entry.split_drive_id:
        return
    try:
        download(
            DRIVE_URL + entry.split_drive_id,
            root / entry.folder / entry.split_file,
            partial(_accept_split, entry),
        )
    except DataError:
        return  # every result then names the seeded split, and `ipo datasets` says where the file comes from


def _accept_split(entry: CatalogueEntry, file: Path) -> None:
    """Raises `DataError` unless the file holds the published split."""
    _, parts = read_split_file(file, file.parent)
    sizes = tuple(len(parts[split]) for split in SPLITS)
    digest = split_hash(file.parent, [parts[split] for split in SPLITS])
    if sizes != entry.sizes or (entry.split_hash and digest != entry.split_hash):
        raise DataError("this is not the published split", where=str(file))


def split_advice(entry: CatalogueEntry, dataset: Dataset) -> str:
    """Where the published split file comes from, if the dataset is used without it; else empty."""
    if not entry.split_file or dataset.split_source.startswith("published"):
        return ""
    return (
        f"The split is not the published one, and results will say so. Get {entry.split_file} "
        f"(https://drive.google.com/file/d/{entry.split_drive_id}) and put it beside the images"
    )


def manual_steps(entry: CatalogueEntry, folder: Path) -> str:
    """What to fetch by hand, from where, and what to do with it."""
    files = [f"{row.file} ({row.checksum or 'no published checksum'})" for row in entry.archives if not row.optional]
    steps = [f"By hand: from {entry.homepage} get {', '.join(files)}"] if files else []
    steps += [f"Note: {entry.by_hand}"] if entry.by_hand else []
    again = f"run `ipo datasets prepare {entry.name}` again"
    unpacked_here = not any(row.by_hand for row in entry.archives)
    named = f"Put them into {folder} and {again}, or name them with --from"
    steps.append(named if unpacked_here else f"The dataset's folder is {folder}; then {again}")
    return "; ".join(steps)
