"""Folders that several processes share: locked, filled beside their place, and seen whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ipo.errors import DataError, IpoError
from ipo.store.disk import writing

LOCK_SECONDS = 3600.0
"""How long a process waits for another one that prepares the same folder."""


@contextmanager
def locked(folder: Path, kind: type[IpoError] = DataError) -> Iterator[None]:
    """Hold the lock of a folder (a hidden file beside it) against other processes.

    Inside, an error of the operating system about files becomes one of this `kind`.
    """
    place = folder.parent / f".{folder.name}.lock"
    with writing(folder, kind):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place)
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout as error:
            remedy = f"Wait, or remove {place}"
            raise kind("another process is still preparing this folder", where=str(folder), remedy=remedy) from error
        try:
            yield
        finally:
            lock.release()


@contextmanager
def staging(folder: Path, kind: type[IpoError] = DataError) -> Iterator[Path]:
    """A new empty folder beside `folder`, removed at the end; call it under the lock of `folder`.

    What a killed process left there is removed first. Operating system errors become errors of this `kind`.
    """
    prefix = f".{folder.name}.staged-"
    with writing(folder, kind):
        for leftover in folder.parent.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        staged = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
        staged.chmod(0o755)
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def made_once(folder: Path, fill: Callable[[Path], None], kind: type[IpoError] = DataError) -> Path:
    """The folder, whose content `fill` writes if it is not there yet.

    Nothing is left if that fails. Of several processes one fills it, and the others wait.
    """
    with writing(folder, kind):
        if folder.is_dir():
            return folder
    with locked(folder, kind):
        if not folder.is_dir():
            with staging(folder, kind) as staged:
                fill(staged)
                staged.rename(folder)
    return folder
