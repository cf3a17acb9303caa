"""Going on with a run: what may be another than before, what must not be, and what `run.json` says of it.

What changes no result may change: where things lie, how servers are asked, and when to stop. Everything else is
compared, by content where that is possible, and a difference is an error that names it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipo import __version__
from ipo.config import DataSettings, Settings
from ipo.config.fields import flat
from ipo.data.load import require_there
from ipo.errors import ConfigError, DataError, RunError, UnknownName
from ipo.packages import installed_versions
from ipo.registry import require_method
from ipo.runs.folder import RunFolder, read_run, read_settings, settings_toml
from ipo.runs.path import CONFIG_FILE, RUN_FILE
from ipo.runs.readers import method_reader
from ipo.runs.scope import unread

PLACES = ("data.dataset", "data.root", "data.targets", "data.names")
"""Where the data lie; the hashes of splits, class names and training images say whether they are the same."""

LIMITS = (
    "search.steps", "search.patience", "search.max_proposals", "search.max_scored", "search.max_tokens",
    "search.max_cost", "search.max_minutes", "search.give_up",
)  # fmt: skip
"""When a search stops: a later one goes on as an unbroken run would have done."""

CHANGEABLE = frozenset(
    (
        *PLACES, *LIMITS, "data.skip_unreadable", "clip.workers", "llm.base_url", "llm.timeout", "llm.retries",
        "llm.concurrency", "captions.base_url", "search.controls", "report.pictures",
        "tracker",
    )
)  # fmt: skip
"""Settings that may be others when a run is gone on with."""

COMPUTING = (
    "torch", "torchvision", "open_clip_torch", "transformers", "tokenizers", "timm", "llguidance", "llama_cpp_python",
    "accelerate", "numpy", "pillow",
)  # fmt: skip
"""Libraries whose version may show in a result."""


@dataclass(frozen=True)
class Change:
    """Something that is another than when the run was last worked on."""

    what: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.what} was {_shown(self.was)}, is {_shown(self.now)}"


@dataclass(frozen=True)
class Resumption:
    """A run that is gone on with: what `run.json` says of it, its settings as they are now, and what changed."""

    path: Path
    method: str
    run: Mapping[str, Any]
    settings: Settings
    changes: tuple[Change, ...]
    forced: tuple[Change, ...]

    def changed(self, names: Collection[str]) -> bool:
        """Whether one of these settings is another than before."""
        return any(change.what in names for change in self.changes)


def plan_resumption(path: Path, settings: Settings | None = None, force: bool = False) -> Resumption:
    """Compare what needs no model and no data: the method, the settings with new ones, and the libraries.

    Raises `RunError` and `ConfigError` naming what cannot be another; `force` lets patch releases of libraries pass.
    """
    run, recorded = read_run(path), read_settings(path)
    method = recorded_method(path, run)
    settings = settings or recorded
    _require_data(settings.data)
    changes = changed_values(flat(recorded.model_dump(mode="json")), flat(settings.model_dump(mode="json")), CHANGEABLE)
    return Resumption(path, method, run, settings, changes, _other_versions(run, path, force))


def recorded_method(path: Path, run: Mapping[str, Any]) -> str:
    """The name of the method of a run, from its `run.json`. Raises `RunError` for one that is not installed."""
    method = str(run.get("method", ""))
    try:
        require_method(method)
    except UnknownName as error:
        raise RunError(error.what, where=str(path), remedy="Install what it came from, or start a new run") from error
    return method


def _require_data(data: DataSettings) -> None:
    """Raise `DataError` where the data are no longer in their place, with the options that name another."""
    try:
        require_there(data.dataset, data.root, data.domains)
    except DataError as error:
        remedy = "Restore it, or give its new place with --dataset or --data-root"
        raise DataError(error.what, where=error.where, remedy=remedy) from error


def changed_values(
    before: Mapping[str, Any], now: Mapping[str, Any], changeable: Collection[str]
) -> tuple[Change, ...]:
    """What is another now. Raises `ConfigError` for what is not `changeable`, since the result would change, too."""
    changes = [Change(name, before.get(name), value) for name, value in now.items() if before.get(name) != value]
    wrong = [change for change in changes if change.what not in changeable]
    if wrong:
        what = f"the result of the run depends on it: {'; '.join(map(str, wrong))}"
        raise ConfigError(what, remedy="Leave it out, or start a new run")
    return tuple(changes)


def _other_versions(run: Mapping[str, Any], path: Path, force: bool) -> tuple[Change, ...]:
    versions = run.get("versions")
    if not isinstance(versions, dict):
        raise RunError("no versions of libraries are recorded", where=str(path / RUN_FILE), remedy="Start a new run")
    here = installed_versions()
    found = [
        Change(name, versions[name], here[name])
        for name in COMPUTING
        if name in versions and name in here and versions[name] != here[name]
    ]
    if run.get("ipo") != __version__:
        found.append(Change("ipo", run.get("ipo"), __version__))
    large = [change for change in found if release(change.was) != release(change.now)]
    if found and (large or not force):
        what = f"the result may depend on the version: {'; '.join(map(str, large or found))}"
        pinned = " ".join(f"{change.what}=={change.was}" for change in large or found)
        way = "start a new run" if large else "go on all the same with --force"
        raise RunError(what, where=str(path), remedy=f"Install {pinned}, or {way}")
    return tuple(found)


def release(version: object) -> tuple[str, ...]:
    """Major and minor number of a version, which a patch release leaves as they are."""
    return tuple(str(version).split("+")[0].split(".")[:2])


EXPLAINED = {
    "split_hash": "the files or labels of the dataset, or their division into splits, are others",
    "phrases": "the word lists of phrases, or the use of them, are others",
    "class_names": "the names of the classes are others",
    "training_content": "training images were replaced or changed",
    "target_splits": "the files, labels or class names of a target are others",
}
"""What a difference of a hash says."""


def require_same(resumption: Resumption, facts: Mapping[str, Any]) -> None:
    """Raise `RunError` for facts that are others than `run.json` has, unless a changed setting accounts for them."""
    wrong = []
    for name, value in facts.items():
        was = resumption.run.get(name)
        if was != value and not _accounted_for(resumption, name, was, value):
            wrong.append(f"{name} ({EXPLAINED[name]})" if name in EXPLAINED else str(Change(name, was, value)))
    if wrong:
        what = f"the run was made under other conditions: {'; '.join(wrong)}"
        raise RunError(what, where=str(resumption.path), remedy="Restore them, or start a new run")


def _accounted_for(resumption: Resumption, name: str, was: Any, value: Any) -> bool:
    if name in ("dataset", "split_source"):  # both may hold the name of a folder or file
        return resumption.changed(("data.dataset",))
    if name == "targets":
        return resumption.changed(("data.targets",))
    if name == "llm":
        return _same_model(resumption, str(was), str(value))
    return False


def _same_model(resumption: Resumption, was: str, now: str) -> bool:
    """Whether two names of an LLM differ in a server's address, or the version of a library, that may be another."""
    if resumption.changed(("llm.base_url",)) and now.startswith("openai:"):
        was, now = was.partition(" at ")[0], now.partition(" at ")[0]
    for change in resumption.forced:
        words = change.what.replace("_", "-")
        was = was.replace(f"{words} {change.was}", f"{words} {change.now}")
    return was == now


def note_resumption(folder: RunFolder, resumption: Resumption, facts: Mapping[str, Any]) -> None:
    """Write the settings as they are now, and in `run.json` the facts, each change, and what was forced or extended."""
    if resumption.changes:
        folder.write(
            CONFIG_FILE,
            settings_toml(resumption.settings, unread(method_reader(resumption.method), resumption.settings)),
        )
    run, when = resumption.run, time.strftime("%Y-%m-%dT%H:%M:%S%z")
    news = {
        "changes": [{"when": when, "setting": one.what, "was": one.was, "is": one.now} for one in resumption.changes],
        "forced": [{"when": when, "what": one.what, "was": one.was, "is": one.now} for one in resumption.forced],
        "extended": [{"when": when, "note": EXTENDED}] if _extends(resumption) else [],
    }
    lists = {name: [*run.get(name, []), *rows] for name, rows in news.items() if rows}
    versions = {"versions": installed_versions(), "ipo": __version__} if resumption.forced else {}
    folder.update(**facts, **versions, **lists, status="running")


EXTENDED = "the run had ended, and its results on test images were known, when a limit was changed"


def _extends(resumption: Resumption) -> bool:
    return resumption.run.get("status") == "done" and resumption.changed(LIMITS)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
