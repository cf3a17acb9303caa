"""The cache: features, captions, converted models and unpacked images that another command need not make again.

`IPO_CACHE` names its folder; `IPO_CACHE=off` keeps nothing beyond the command. A cache that cannot be written is read
as far as it goes, with one warning: what is new is then made again the next time.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from ipo.errors import ConfigError, RunError
from ipo.store.disk import reason_of, writing
from ipo.store.files import sweep, write_atomic

OFF = "off"
"""The value of IPO_CACHE that switches the cache off."""
CACHE_REMEDY = f"Set IPO_CACHE to a folder of yours, or to {OFF}"

_DAY = 24 * 3600.0
_log = logging.getLogger(__name__)
_warned: set[Path] = set()


def is_off() -> bool:
    """Whether IPO_CACHE switches the cache off."""
    return os.environ.get("IPO_CACHE", "").strip().lower() == OFF


def user_folder() -> Path:
    """`ipo` in the user's cache folder."""
    return (Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ipo").expanduser()


def cache_folder() -> Path:
    """The folder that IPO_CACHE names, or the user's; where the cache is off, one that goes with the process.

    Raises `ConfigError` where there can be no folder.
    """
    if is_off():
        return scratch_folder()
    folder = Path(os.environ.get("IPO_CACHE") or user_folder()).expanduser()
    with suppress(PermissionError):  # what cannot be looked into cannot be written either, which is said there
        nearest = next((place for place in (folder, *folder.parents) if place.exists()), None)
        if nearest is not None and not nearest.is_dir():
            raise ConfigError("the cache is not a folder", where=str(nearest), remedy=CACHE_REMEDY)
    return folder


def cache_place(*parts: str) -> Path:
    """Where a file or folder of the cache is, or is to be made.

    One that is not there, in a cache that cannot be written, gets a place that goes with the process.
    """
    place = cache_folder().joinpath(*parts)
    with suppress(PermissionError):
        if place.exists():
            return place
    return place if unwritable() is None else scratch_folder().joinpath(*parts)


def unwritable() -> str | None:
    """Why nothing can be written to the cache, with one warning; None where it can be."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        warn_unwritable(folder, reason_of(error))
        return reason_of(error)


def warn_unwritable(folder: Path, reason: str) -> None:
    """Say once a process and folder that nothing new is kept."""
    if folder not in _warned:
        _warned.add(folder)
        _log.warning("cannot write to the cache: %s (%s); what is new is not kept. %s", reason, folder, CACHE_REMEDY)


def write_cache(path: Path, data: str | bytes) -> bool:
    """Write a file of the cache, and its folder if need be; whether that was possible, with a warning where not."""
    try:
        write_atomic(path, data)
    except RunError as error:
        warn_unwritable(path.parent, error.what.removeprefix("cannot write: "))
        return False
    return True


def cached_files(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder of the cache in order of their names; none, with a warning, where it cannot be read.

    What processes that were killed long ago left half written is removed.
    """
    sweep(folder, idle=_DAY)
    try:
        return sorted(folder.glob(pattern))
    except OSError as error:
        warn_unwritable(folder, reason_of(error))
        return []


@cache
def scratch_folder() -> Path:
    """An empty folder that goes with the process. Raises `RunError` where there can be none."""
    with writing(Path(os.environ.get("TMPDIR", "/tmp"))):
        folder = Path(tempfile.mkdtemp(prefix="ipo-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
