"""Where a run may lie: free names, and folders that are empty or hold what a start without an end has left."""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

from ipo.errors import RunError
from ipo.store.disk import reason_of
from ipo.store.files import is_temporary

CONFIG_FILE = "config.toml"
RUN_FILE = "run.json"
CAPTIONS_FILE = "captions.jsonl"
LOCK_FILE = ".lock"
RUNS = Path("runs")
"""Where runs lie that nobody named."""

_BEFORE_RUN_FILE = {LOCK_FILE, CONFIG_FILE, CAPTIONS_FILE}


def require_free(path: Path) -> None:
    """Raise `RunError` unless a run can be created at `path`; nothing is left behind by the attempt."""
    require_name(path)
    made = make_folder(path)
    try:
        require_empty(path)
        require_writable(path)
    finally:
        remove_empty(made)


def require_writable(path: Path) -> None:
    """Raise `RunError` where no file can be made in a folder."""
    try:
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise unwritable(path, error) from error


def require_name(path: Path) -> None:
    """Raise `RunError` for a name that cannot be shown on one line."""
    if not str(path).isprintable():
        raise RunError("the name of a run holds a line break or another control character", where=str(path))


def make_folder(path: Path) -> list[Path]:
    """Make the folder, and return those that were not there before, innermost first."""
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    return missing


def remove_empty(folders: list[Path]) -> None:
    """Remove those of the folders in which nothing lies."""
    with suppress(OSError):  # another run may have come to lie beside this one meanwhile
        for folder in folders:
            folder.rmdir()


def remove_lock(path: Path) -> None:
    """Remove the lock file of a folder, whose lock must not be held."""
    with suppress(OSError):
        (path / LOCK_FILE).unlink(missing_ok=True)


def require_empty(path: Path) -> None:
    """Raise `RunError` where there is more than a start without an end has left; only such a one leaves a lock file."""
    try:
        files = {file.name for file in path.iterdir() if not is_temporary(file)}
    except OSError as error:
        raise unwritable(path, error) from error
    if files - {LOCK_FILE} and not (LOCK_FILE in files and files <= _BEFORE_RUN_FILE):
        remedy = f"Go on with --resume {path}, or give" if RUN_FILE in files else "Give"
        raise RunError("the folder is not empty", where=str(path), remedy=f"{remedy} another --out")


def unwritable(path: Path, error: Exception) -> RunError:
    """Why no run can be at `path`."""
    reason = reason_of(error) if isinstance(error, OSError) else "its file system has no locks"
    return RunError(f"no run can be written here: {reason}", where=str(path), remedy="Give another folder")


def folder_name(*words: str) -> str:
    """A name for a folder made of the given words."""
    return re.sub(r"[^A-Za-z0-9.=-]+", "-", "-".join(words)).strip("-.")


def new_run_path(parent: Path, *words: str) -> Path:
    """A free folder name under `parent` made of the given words, with a number where one is taken."""
    stem = folder_name(*words)
    path = parent / stem
    number = 2
    while os.path.lexists(path):
        path = parent / f"{stem}-{number}"
        number += 1
    return path


def claim_run_path(parent: Path, *words: str) -> Path:
    """A new, empty folder under the next free name, which no other process is given."""
    while True:
        path = new_run_path(parent, *words)
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not parent.is_dir():
                raise RunError("no run can be written here: not a folder", where=str(parent)) from None
        except OSError as error:
            raise unwritable(path, error) from error
        else:
            return path
