"""The folder of a run: settings, what it ran with, results. It explains itself to someone without Python.

Shared by `ipo optimize` and `ipo baseline`. `run.json` says how far the run came in `status`.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict

from ipo import __version__
from ipo.clip.specs import by_its_name_now, model_now
from ipo.config import Settings, load_settings
from ipo.errors import RunError
from ipo.llm.base import UNPAID, Spent
from ipo.packages import installed_versions
from ipo.runs.path import (
    CONFIG_FILE,
    LOCK_FILE,
    RUN_FILE,
    make_folder,
    remove_empty,
    remove_lock,
    require_empty,
    require_name,
    require_writable,
    unwritable,
)
from ipo.store.disk import reason_of
from ipo.store.files import checked, read_json, sweep, write_atomic, write_json
from ipo.store.stop import forget_stop
from ipo.store.toml import to_toml

RESULT_FILE = "result.json"


class RunFacts(BaseModel):
    """What is relied on in `run.json`, where it is there."""

    model_config = ConfigDict(extra="allow", strict=True)

    status: str = ""
    method: str = ""
    options: dict[str, Any] = {}
    dataset: str = ""
    metric: str = "accuracy"
    split_source: str = ""
    split_hash: str = ""
    classes: str = ""
    class_count: int = 0
    classnames: list[str] = []
    training_images: int = 0
    clip: dict[str, Any] = {}
    llm: str = ""
    captioner: str = ""
    phrases: str = ""
    caption_usage: Spent = UNPAID
    seed: int = 0
    offline: bool = False
    targets: list[str] = []
    versions: dict[str, str] = {}
    changes: list[dict[str, Any]] = []
    forced: list[dict[str, Any]] = []
    extended: list[dict[str, Any]] = []


_run_facts = checked(RunFacts)


class RunFolder:
    """An open run folder, locked against a second process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        require_writable(path)
        self._lock = FileLock(path / LOCK_FILE)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                "another process works on this run", where=str(path), remedy="Wait for it, or end it"
            ) from None
        except (OSError, RuntimeError) as error:  # the latter where a file system knows no locks
            raise unwritable(path, error) from error
        sweep(path)
        forget_stop(path)

    @classmethod
    def create(
        cls,
        path: Path,
        settings: Settings,
        facts: dict[str, Any],
        texts: Mapping[str, str] | None = None,
        unread: Collection[str] = (),
    ) -> RunFolder:
        """A new folder with `config.toml` and further `texts` by file name; never over an existing run.

        `run.json` (versions and `facts`) comes last: with it the run has begun, and can be resumed. Without it the
        start can be repeated: what one that was killed or failed has left is written again. Settings that are `unread`
        are left out.
        """
        require_name(path)
        made = make_folder(path)
        try:
            require_empty(path)
            folder = cls(path)
            try:
                require_empty(path)  # another process may have been here before the lock was held
                folder._begin({CONFIG_FILE: settings_toml(settings, unread), **(texts or {})}, facts)
            except BaseException:
                folder.close()
                if path in made:
                    remove_lock(path)
                raise
        except BaseException:
            remove_empty(made)
            raise
        return folder

    def _begin(self, texts: Mapping[str, str], facts: dict[str, Any]) -> None:
        try:
            for name, text in texts.items():
                write_atomic(self.path / name, text)
            run: dict[str, Any] = {"ipo": __version__, "python": platform.python_version()}
            run |= {"machine": platform.machine(), "versions": installed_versions(), "started": _now()}
            write_json(self.path / RUN_FILE, run | facts | {"status": "running"})
        except BaseException:
            for name in (*texts, RUN_FILE):
                with suppress(OSError):
                    (self.path / name).unlink(missing_ok=True)
            raise

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run, to go on with it."""
        require_run(path)
        return cls(path)

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the folder. Raises `RunError` where it is missing or damaged."""
        return read_run(self.path) if name == RUN_FILE else read_run_json(self.path, name)

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
        with suppress(OSError):  # a lock goes with its process at the latest
            self._lock.release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def is_first_process() -> bool:
    """Whether this is the process of a group (as `torchrun` starts it) that writes the run folder."""
    return int(os.environ.get("RANK", "0")) == 0


def require_run(path: Path) -> None:
    """Raise `RunError` unless a run has begun in this folder."""
    try:
        (path / RUN_FILE).lstat()
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {reason_of(error)}"
        remedy = "Give the folder of a run"
        raise RunError(f"no run here: {RUN_FILE} {reason}", where=str(path), remedy=remedy) from error


def read_settings(folder: Path, given: Mapping[str, Any] | None = None) -> Settings:
    """The settings that a run was started with, and nested ones `given` above them, without locking it."""
    settings = load_settings(folder / CONFIG_FILE, given)
    return settings.model_copy(update={"clip": model_now(settings.clip, recorded_model(folder))})


def recorded_model(folder: Path) -> str | None:
    """The CLIP model that a run was scored with, by the name that it has now; None where that cannot be read."""
    try:
        return str(read_run_json(folder, RUN_FILE)["clip"]["name"])
    except (RunError, LookupError, TypeError):
        return None


def read_run(folder: Path) -> dict[str, Any]:
    """The content of `run.json`, whose known keys have the types of `RunFacts`. Raises `RunError`."""
    content = read_run_json(folder, RUN_FILE)
    try:
        _run_facts(content)
    except ValueError as error:
        raise RunError(f"cannot read {RUN_FILE}: {error}", where=str(folder), remedy="Restore the file") from error
    return content


def read_run_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of a run folder, without locking it. Raises `RunError` where it is missing or damaged."""
    try:
        return by_its_name_now(read_json(folder / name, _json_object))
    except FileNotFoundError:
        raise RunError(
            f"{name} is missing", where=str(folder), remedy="Is this the folder of a finished run?"
        ) from None


def _json_object(content: object) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise TypeError("not a JSON object")
    return content


def settings_toml(settings: Settings, unread: Collection[str] = ()) -> str:
    """Settings as TOML that `load_settings` reads back to equal ones, without unset values and those `unread`."""
    values = {}
    for name, value in settings.model_dump(mode="json", exclude_none=True).items():
        if isinstance(value, dict):
            value = {key: one for key, one in value.items() if f"{name}.{key}" not in unread}
        if name not in unread and value != {}:
            values[name] = value
    return to_toml(values)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
