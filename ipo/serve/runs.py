"""The run folders below a place, by names that no request can leave it with, and what a list says of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ipo.comparison.trials import read_toml, with_domains
from ipo.errors import IpoError, RunError
from ipo.report.candidates import candidate_row, most_of
from ipo.report.pages import shown_entry, with_interval
from ipo.runs.folder import RESULT_FILE, read_run, read_settings
from ipo.runs.path import LOCK_FILE, RUN_FILE
from ipo.runs.result import Result, read_result
from ipo.screen import printable
from ipo.search.history import History
from ipo.search.record import HISTORY_FILE

_DEEPEST = 4
"""How many folders below the place a run may lie."""


def find_runs(root: Path) -> dict[str, Path]:
    """All runs below a folder, or the folder itself, by their places in it; links are not followed.

    A request names a run by a key of these, so that no path of it is ever opened.
    """
    if (root / RUN_FILE).is_file():
        return {root.resolve().name: root}
    return dict(sorted((printable(path.relative_to(root).as_posix()), path) for path in _search(root, _DEEPEST)))


def _search(folder: Path, depth: int) -> Iterator[Path]:
    try:
        children = [Path(child.path) for child in os.scandir(folder) if child.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for child in children:
        if (child / RUN_FILE).is_file():
            yield child
        elif depth > 1 and not child.name.startswith("."):
            yield from _search(child, depth - 1)


@dataclass(frozen=True)
class Summary:
    """A run in a list, fit for a page."""

    name: str
    method: str = ""
    dataset: str = ""
    model: str = ""
    status: str = ""
    best: str = ""
    training: float | None = None
    """Of the best prompt so far, in percent."""
    test: str = ""
    scored: int = 0
    step: int = 0
    error: str = ""


def status_of(folder: Path, recorded: str) -> str:
    """`running`, `done`, or why it ended; a run that says it is running and that nobody works on was cut off."""
    if recorded != "running":
        return recorded
    return "running" if is_worked_on(folder) else "cut off"


def is_worked_on(folder: Path) -> bool:
    """Whether a process holds the lock of a run."""
    lock = FileLock(folder / LOCK_FILE)
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # where nothing can be written nobody works
        return False


def summary(name: str, folder: Path) -> Summary:
    """What a list says of a run; of a damaged one what is wrong with it. Its files are read when they have changed."""
    found = _summary(name, folder, _stamps(folder, RUN_FILE, HISTORY_FILE, RESULT_FILE))
    return replace(found, status=status_of(folder, found.status))


def _stamps(folder: Path, *names: str) -> tuple[tuple[int, int], ...]:
    """What changes when one of these files does."""
    found = []
    for name in names:
        try:
            status = (folder / name).stat()
            found.append((status.st_mtime_ns, status.st_size))
        except OSError:
            found.append((0, 0))
    return tuple(found)


@lru_cache(maxsize=1024)
def _summary(name: str, folder: Path, stamps: tuple[tuple[int, int], ...]) -> Summary:
    del stamps  # they say when what is kept is out of date
    try:
        run = read_run(folder)
        result = read_result(folder) if (folder / RESULT_FILE).exists() else None
        history = read_history(folder)
        best = history.ranked()[:1] if history else []
        shown = {
            "method": run.get("method", ""),
            "dataset": with_domains(run.get("dataset", ""), read_toml(folder)),
            "model": run.get("clip", {}).get("name", ""),
            "status": run.get("status", ""),
            "best": best[0].text if best else "",
        }
        return Summary(
            name=printable(name),
            **{key: printable(str(value)) for key, value in shown.items()},
            training=round(100 * best[0].score.value, 2) if best and best[0].score else None,
            test=main_figure(result) if result else "",
            scored=len(history.scored()) if history else 0,
            step=history.entries[-1].step if history and len(history) else 0,
        )
    except IpoError as error:
        return Summary(name=printable(name), status="damaged", error=printable(str(error)))


def main_figure(result: Result) -> str:
    """Accuracy of the predictor that stands for a method, with its interval; H where there are new classes."""
    headline = result.predictors.get(result.headline) or next(iter(result.predictors.values()))
    if headline.H is not None:
        return f"H {100 * headline.H:.1f}"
    return with_interval(headline.base)


def read_history(folder: Path) -> History | None:
    """The history of a search, to look at; None for another method. It is read when its file has changed."""
    if not (folder / HISTORY_FILE).exists():
        return None
    return _history(folder, _stamps(folder, HISTORY_FILE))


@lru_cache(maxsize=4)
def _history(folder: Path, stamps: tuple[tuple[int, int], ...]) -> History:
    del stamps
    return History.read(read_settings(folder).search.select, folder / HISTORY_FILE)


def rows_from(folder: Path, start: int) -> dict[str, Any]:
    """The candidates of a run from the one with the id `start` on, and how far it is; for a page that follows it."""
    if start < 0:
        raise RunError("there is no candidate before the first", remedy="Ask from 0 on")
    history, run = read_history(folder), read_run(folder)
    entries = history.entries if history else []
    most = most_of(entries)
    best = history.ranked()[:1] if history else []
    return {
        "rows": [candidate_row(shown_entry(entry), most) for entry in entries[start:]],
        "total": len(entries),
        "step": entries[-1].step if entries else 0,
        "best": printable(best[0].text) if best else "",
        "accuracy": round(100 * best[0].score.value, 2) if best and best[0].score else None,
        "status": printable(status_of(folder, str(run.get("status", "")))),
    }
