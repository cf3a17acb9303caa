"""Bring a benchmark into its folder: unpack or download its archives, check them, and let them land in one piece."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlparse

from ipo.data.archives import is_archive, locked, staging, verify
from ipo.data.catalogue import Archive, CatalogueEntry, catalogue_entry
from ipo.data.check import require_complete
from ipo.data.download import download
from ipo.data.layouts import Place
from ipo.data.load import read_entry
from ipo.data.locate import data_root, find_split_file, is_present, lying_archives, markers, unpack_bundle
from ipo.data.splits import SPLITS, read_split_file, split_hash
from ipo.data.stamps import build_stamps
from ipo.data.types import Dataset
from ipo.errors import DataError

DRIVE_URL = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
"""Where Google Drive serves a file by its id."""


def prepare(name: str, root: Path | None = None, source: str | None = None, *, seed: int = 1) -> Dataset:
    """Put a catalogue dataset into its folder below `root` and return it; what is there already is only checked.

    `source` is an archive or a folder that holds the archives, as a path or `file:` address, or an `https:` address
    of an archive; without it, archives lying in the data root are used and the others downloaded. All is verified
    and counted before it takes its place. Raises `DataError`, with manual steps where a file cannot be had; what was
    there before stays as it was.
    """
    return prepare_entry(catalogue_entry(name), data_root(root), source, seed=seed)


def prepare_entry(entry: CatalogueEntry, root: Path, source: str | None = None, *, seed: int = 1) -> Dataset:
    """`prepare` for any row, in a catalogue or not."""
    folder = root / entry.folder
    with locked(folder):
        present = is_present(entry, folder)
        if not present:
            try:
                _build(entry, root, source, seed)
            finally:
                _remove_if_empty(folder)
        dataset = read_entry(entry, Place(folder, find_split_file(entry, root), (root / "imagenet",)), seed)
        if present:
            require_complete(entry, dataset)
    return dataset


def _build(entry: CatalogueEntry, root: Path, source: str | None, seed: int) -> None:
    """Stage the dataset beside its folder, check it there, and move it in."""
    folder = root / entry.folder
    fetched: list[Path] = []
    with staging(folder) as staged:
        if entry.layout == "classes":
            build_stamps(staged, local_path(source) if source else None)
        else:
            _take_split_file(entry, root, source, staged)
            given = _named_archives(entry, folder, source) if source else {}
            lying = lying_archives(entry, [folder, root])
            files = given | {file: row for file, row in lying.items() if row not in given.values()}
            fetched = _fetch_missing(entry, root, files, bool(find_split_file(entry, staged)))
            unpack_bundle(files, staged)
        split_file = find_split_file(entry, root) or find_split_file(entry, staged)
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


def local_path(source: str) -> Path:
    """A path or a `file:` address as a path."""
    address = urlparse(source)
    return Path(unquote(address.path)) if address.scheme == "file" else Path(source).expanduser()


def _named_archives(entry: CatalogueEntry, folder: Path, source: str) -> dict[Path, Archive]:
    """The archives that `source` names: one by its address or path, or all of the dataset's in a folder."""
    address = urlparse(source)
    if address.scheme in ("http", "https"):
        name = Path(unquote(address.path)).name
        row = _row_of(entry, name)
        return {download(source, folder / name, partial(verify, checksum=row.checksum)): row}
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


def _fetch_missing(entry: CatalogueEntry, root: Path, files: dict[Path, Archive], have_split: bool) -> list[Path]:
    """Download the needed archives that are not among `files`, and add them; returns the new ones.

    Lists that are no archives go straight to their place. Raises `DataError` with the manual steps for a file without
    a public address.
    """
    folder = root / entry.folder
    have_split = have_split or find_split_file(entry, root) is not None
    fetched: list[Path] = []
    for row in entry.archives:
        target = folder / row.into / row.file
        if row in files.values() or (row.optional and have_split) or _lies(row, target, root):
            continue
        if not row.url:
            if row.optional:
                continue
            raise DataError(f"'{row.file}' has to be fetched by hand", remedy=manual_steps(entry, folder))
        try:
            got = download(row.url, target, partial(verify, checksum=row.checksum))
        except DataError as error:
            raise DataError(
                error.what, where=error.where, remedy=f"{error.remedy}. {manual_steps(entry, folder)}"
            ) from error
        if is_archive(got):
            files[got] = row
            fetched.append(got)
    return fetched


def _lies(row: Archive, target: Path, root: Path) -> bool:
    return not is_archive(target) and (target.is_file() or (root / "imagenet" / row.file).is_file())


def _take_split_file(entry: CatalogueEntry, root: Path, source: str | None, staged: Path) -> None:
    """Get the published split file: from beside `source`, or from its authors. Without it the split is seeded."""
    if not entry.split_file or find_split_file(entry, root):
        return
    if source is not None and urlparse(source).scheme not in ("http", "https"):
        path = local_path(source)
        beside = (path if path.is_dir() else path.parent) / entry.split_file
        if beside.is_file():
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
    steps.append(f"Put them into {folder} and run `ipo datasets prepare {entry.name}` again, or name them with --from")
    return "; ".join(steps)
