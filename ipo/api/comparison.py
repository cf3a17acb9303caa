"""`ipo.compare`, and what the command of that name reads and chooses before it prints."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ipo.api.arguments import Place, folder
from ipo.api.loaded import Run
from ipo.api.table import Table
from ipo.comparison.formats import as_text, records
from ipo.comparison.names import AVERAGE, label_notes
from ipo.comparison.rows import Row, catalogue_places, choose_reference, published_rows
from ipo.comparison.rows import compare as compare_trials
from ipo.comparison.tables import notes
from ipo.comparison.trials import Trial, merge_twins, read_trials
from ipo.errors import ConfigError, RunError


class Comparison(Table[Row]):
    """A row for each method and dataset; printed, it is the table of `ipo compare`."""

    def __init__(self, rows: Sequence[Row], words: Sequence[str], left_out: Sequence[str]) -> None:
        super().__init__(rows, lambda row: records([row])[0], "row")
        self.notes = tuple(words)
        """What has to be known to read the rows."""
        self.left_out = tuple(left_out)
        """Folders without a finished run, and damaged ones, each with the reason."""

    def to_records(self) -> list[dict[str, Any]]:
        """All figures as fractions, unrounded: the columns of `--format csv`."""
        return records(list(self))

    def _repr_html_(self) -> str:
        """The same table in a notebook."""
        return f"<pre>{escape(repr(self))}</pre>"

    def __repr__(self) -> str:
        return as_text(list(self), [*self.notes, *(f"left out: {reason}" for reason in self.left_out)])


def compare(
    runs: Place | Run | Iterable[Place | Run],
    *,
    reference: str | None = None,
    controls: bool = False,
    published: bool = False,
) -> Comparison:
    """Finished runs side by side, as `ipo compare` shows them: base, new and H over seeds, and differences.

    `runs` are runs, their folders, or folders of run folders. `reference` is the method that differences are from,
    `controls` adds those of searches, `published` the figures of papers. Raises `ConfigError` where no run is finished.
    """
    several = [runs] if isinstance(runs, str | os.PathLike | Run) else runs
    paths = [run.path if isinstance(run, Run) else folder(run) for run in several]
    trials, left_out = read_runs(paths, controls)
    rows, words = compared(trials, reference, published)
    return Comparison(rows, words, left_out)


def compared(trials: Sequence[Trial], reference: str | None, published: bool) -> tuple[list[Row], list[str]]:
    """The rows of a comparison, and the notes below it."""
    rows = compare_trials(trials, reference)
    if published:
        rows = with_published(rows, trials)
    return rows, [*notes(rows, choose_reference(trials, reference)), *label_notes(trials)]


def read_runs(paths: Sequence[Path], controls: bool) -> tuple[list[Trial], list[str]]:
    """The trials of all finished runs, and why other folders were left out.

    Raises `ConfigError` where there is no finished run at all.
    """
    trials: list[Trial] = []
    left_out: list[str] = []
    for place in find_runs(paths):
        try:
            trials += read_trials(place, controls)
        except RunError as error:
            left_out.append(str(error))
    if not trials:
        names = ", ".join(f"'{path}'" for path in paths)
        more = f": {'; '.join(left_out)}" if left_out else ""
        raise ConfigError(f"no finished run in {names}{more}", remedy="Give folders that hold result.json")
    return merge_twins(trials), left_out


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The folders that were named, or the runs one level below them where they are none, each once, by name."""
    found: dict[Path, Path] = {}
    for path in paths:
        inside = [path] if is_run(path) else sorted(place for place in path.glob("*") if is_run(place))
        for place in inside or [path]:
            found.setdefault(place.resolve(), place)
    return list(found.values())


def is_run(place: Path) -> bool:
    """Whether this is the folder of a run, finished or not, or what is left of one."""
    try:
        return any((place / name).exists() for name in ("result.json", "run.json"))
    except OSError:
        return False


def with_published(rows: Sequence[Row], trials: Sequence[Trial]) -> list[Row]:
    """The rows and the published ones of their datasets; averages only over the same datasets."""
    places = catalogue_places(trials)
    extra = published_rows(places, [trial.facts["shots"] for trial in trials])
    datasets = {row.dataset for row in rows if row.dataset != AVERAGE}
    return in_dataset_order([*rows, *(row for row in extra if row.dataset != AVERAGE or set(places) == datasets)])


def in_dataset_order(rows: Sequence[Row]) -> list[Row]:
    """Rows with those of one dataset together, datasets in order of appearance."""
    order = list(dict.fromkeys(row.dataset for row in rows))
    return sorted(rows, key=lambda row: order.index(row.dataset))
