"""The folder of a run: settings, what it ran with, results. It explains itself to someone without Python.

Shared by `ipo optimize` and `ipo baseline`. `run.json` says how far the run came in `status`.
"""

from __future__ import annotations

import json
import platform
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ipo import __version__
from ipo.config import Settings, load_settings
from ipo.errors import RunError
from ipo.files import write_atomic, write_json
from ipo.toml import to_toml

CONFIG_FILE = "config.toml"
RUN_FILE = "run.json"
RESULT_FILE = "result.json"
_PACKAGES = ("torch", "torchvision", "open_clip_torch", "transformers", "timm", "openai", "llguidance")


class RunFolder:
    """An open run folder, locked against a second process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                "another process works on this run", where=str(path), remedy="Wait for it, or end it"
            ) from None
        except OSError as error:
            raise _unwritable(path, error) from error

    @classmethod
    def create(
        cls, path: Path, settings: Settings, facts: dict[str, Any], texts: Mapping[str, str] | None = None
    ) -> RunFolder:
        """A new folder with `config.toml` and further `texts` by file name; never over an existing run.

        `run.json` (versions and `facts`) comes last: with it the run has begun, and can be resumed.
        """
        _make_empty(path)
        folder = cls(path)
        for name, text in {CONFIG_FILE: settings_toml(settings), **(texts or {})}.items():
            write_atomic(path / name, text)
        run: dict[str, Any] = {"ipo": __version__, "python": platform.python_version(), "machine": platform.machine()}
        run |= {"versions": _versions(), "started": _now(), **facts, "status": "running"}
        write_json(path / RUN_FILE, run)
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run, to go on with it."""
        if not (path / RUN_FILE).is_file():
            raise RunError(f"no run here: {RUN_FILE} is missing", where=str(path), remedy="Give the folder of a run")
        return cls(path)

    @property
    def settings(self) -> Settings:
        """The settings that the run was started with."""
        return read_settings(self.path)

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder. Raises `RunError` where it is missing or damaged."""
        return read_run_json(self.path, name)

    def update(self, **facts: Any) -> None:
        """Change facts of `run.json`, such as its status."""
        write_json(self.path / RUN_FILE, self.read(RUN_FILE) | facts | {"updated": _now()})

    def write(self, name: str, content: str | dict[str, Any] | list[Any]) -> Path:
        """Write a whole file, text or JSON, and return its path."""
        path = self.path / name
        if isinstance(content, str):
            write_atomic(path, content)
        else:
            write_json(path, content)
        return path

    def close(self) -> None:
        """Let other processes in."""
        self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def require_free(path: Path) -> None:
    """Raise `RunError` unless a run can be created at `path`; nothing is left behind by the attempt."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    _make_empty(path)
    with suppress(OSError):  # another run may have come to lie beside this one meanwhile
        for folder in missing:
            folder.rmdir()


def _make_empty(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            remedy = f"Go on with --resume {path}, or give" if (path / RUN_FILE).exists() else "Give"
            remedy += " another --out"
            raise RunError("the folder is not empty", where=str(path), remedy=remedy)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> RunError:
    reason = "not a folder" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror
    return RunError(f"no run can be written here: {reason}", where=str(path), remedy="Give another folder")


def read_settings(folder: Path) -> Settings:
    """The settings that a run was started with, without locking it."""
    return load_settings(folder / CONFIG_FILE)


def read_run_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of a run folder, without locking it."""
    path = folder / name
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError("not a JSON object")
        return content
    except FileNotFoundError:
        raise RunError(
            f"{name} is missing", where=str(folder), remedy="Is this the folder of a finished run?"
        ) from None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise RunError(f"cannot read {name}: {error}", where=str(folder)) from error


def new_run_path(parent: Path, *words: str) -> Path:
    """A free folder name under `parent` made of the given words, with a number where one is taken."""
    stem = re.sub(r"[^A-Za-z0-9.=-]+", "-", "-".join(words)).strip("-.")
    path = parent / stem
    number = 2
    while path.exists():
        path = parent / f"{stem}-{number}"
        number += 1
    return path


def settings_toml(settings: Settings) -> str:
    """Settings as TOML that `load_settings` reads back to equal ones; unset values are left out."""
    return to_toml(settings.model_dump(mode="json", exclude_none=True))


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
