"""`ipo history`: what runs tried, as a table, as CSV or as JSON lines."""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ipo.cli.console import print_json
from ipo.errors import ConfigError, RunError

if TYPE_CHECKING:
    from ipo.prompt import HistoryEntry
    from ipo.search.history import History

Order = Literal["score", "step", "strategy"]
WORDS = (
    "Accuracy, its 95% interval (Wilson) and the loss (mean cross-entropy in nats) are on the training images; "
    "step 0 is that of the first prompts."
)


@dataclass(frozen=True)
class Tried:
    """The history of one run, and who proposed: its strategy."""

    run: Path
    strategy: str
    model: str
    history: History


@dataclass(frozen=True)
class Row:
    """A candidate, and the run that tried it."""

    of: Tried
    entry: HistoryEntry

    @property
    def strategy(self) -> str:
        """Who proposed it: a strategy, or a person."""
        return self.entry.by or self.of.strategy


def history(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders of searches.")],
    by: Annotated[
        Order, typer.Option("--by", help="Order: best first, as they came, or strategy by strategy, best first.")
    ] = "score",
    top: Annotated[int | None, typer.Option("--top", min=1, help="Show so many only.")] = None,
    rejects: Annotated[bool, typer.Option("--rejects", help="Show the rejected proposals and why.")] = False,
    grep: Annotated[
        str | None,
        typer.Option("--grep", metavar="REGEX", help="Only those whose text or reason matches, in any case."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Show the prompts of runs with their training scores.

    Examples:

      ipo history runs/caltech101-local-llama-16shot-seed1 --top 10

      ipo history RUN --rejects --grep 'class name'

      ipo history runs/* --by strategy --top 20

      ipo history RUN --csv > prompts.csv

      ipo history RUN --json | jq -r .text
    """
    if as_csv and as_json:
        raise ConfigError("--csv and --json at once", remedy="Give one of them")
    matches = matcher(grep)
    tried = [read(run) for run in runs]
    rows = ordered([Row(one, entry) for one in tried for entry in one.history], by, rejects)
    rows = [row for row in rows if matches(row.entry)][:top]
    if as_json:
        for row in rows:
            print_json({**({"run": str(row.of.run)} if len(tried) > 1 else {}), **row.entry.to_json()}, indent=None)
    elif as_csv:
        print_csv(rows)
    else:
        print_table(rows, rejects, len(tried) > 1)
        for one in tried:
            print_count(one, len(tried) > 1)
        if not rejects:
            print(WORDS)


def read(run: Path) -> Tried:
    """The history of a run. Raises `RunError` where there is none."""
    from ipo.search.record import HISTORY_FILE

    path = run / HISTORY_FILE
    if not os.path.lexists(path):
        raise RunError(f"no {HISTORY_FILE} here", where=str(run), remedy="Give the folder of an `ipo optimize` run")

    from ipo.runs.folder import read_settings, recorded_model
    from ipo.search.history import History

    settings = read_settings(run)
    return Tried(run, settings.strategy.name, recorded_model(run) or "", History.read(settings.search.select, path))


def matcher(grep: str | None) -> Callable[[HistoryEntry], bool]:
    """Whether an entry's text or reason matches a regular expression. Raises `ConfigError` for one that is none."""
    if grep is None:
        return lambda _: True
    try:
        pattern = re.compile(grep, re.IGNORECASE)
    except re.error as error:
        what, remedy = f"--grep is no regular expression: {error}", "Put a backslash before signs such as ( and *"
        raise ConfigError(what, where=grep, remedy=remedy) from error
    return lambda entry: pattern.search(entry.text) is not None or pattern.search(entry.reason or "") is not None


def ordered(rows: list[Row], by: Order, rejects: bool) -> list[Row]:
    """The scored candidates or the rejects in the order asked for; equals stay as they came."""
    kept = [row for row in rows if (row.entry.score is None) == rejects]
    if by != "step" and not rejects:
        kept.sort(key=lambda row: row.of.history.value(row.entry), reverse=True)
    if by == "step":
        kept.sort(key=lambda row: row.entry.step)
    return sorted(kept, key=lambda row: row.strategy) if by == "strategy" else kept


def print_table(rows: list[Row], rejects: bool, several: bool) -> None:
    """Candidates as aligned columns, a long text on several lines."""
    from ipo.cli.columns import columns
    from ipo.prompt import METRIC_WORDS

    metrics = [row.entry.score.metric for row in rows if row.entry.score] or ["accuracy"]
    whose = ("strategy",) if several else ()
    told = ("reason", "reply") if rejects else (f"{METRIC_WORDS[metrics[0]]}, %", "95% interval", "loss")
    headings = ("step", *whose, *told) if rejects else (*told, "step", *whose, "prompt")
    cells = [table_row(row, several) for row in rows]
    print("\n".join(columns(headings, cells, texts=("strategy", "reason", "reply", "prompt"))))


def table_row(row: Row, several: bool) -> list[str]:
    """One candidate as cells: its figures, step and text, or step, reason and text of a reject."""
    entry, score = row.entry, row.entry.score
    place = [str(entry.step), *([row.strategy] if several else [])]
    if score is None:
        return [*place, entry.reason or "", entry.text]
    interval = f"{100 * score.low:.1f} - {100 * score.high:.1f}"
    return [f"{100 * score.value:.2f}", interval, f"{score.loss:.4f}", *place, entry.text]


def print_csv(rows: list[Row]) -> None:
    """Candidates as CSV, the figures as they were recorded."""
    names = ["run", "strategy", "id", "step", "parent", "metric", "value", "low", "high", "loss", "reason", "text"]
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(csv_row, rows))


def csv_row(row: Row) -> dict[str, Any]:
    """One candidate as a line of CSV."""
    entry, score = row.entry, row.entry.score
    figures = (
        {} if score is None else {name: getattr(score, name) for name in ("metric", "value", "low", "high", "loss")}
    )
    place = {"run": row.of.run, "strategy": row.strategy, "id": entry.id, "step": entry.step, "parent": entry.parent}
    return {**place, **figures, "reason": entry.reason, "text": entry.text}


def print_count(tried: Tried, several: bool) -> None:
    """How many candidates a run scored and rejected."""
    from ipo.screen import printable

    where = f"{printable(str(tried.run))}: " if several else ""
    model = f" by {printable(tried.model)}" if tried.model else ""
    scored, rejected = len(tried.history.scored()), len(tried.history.rejects())
    print(f"{where}{scored} scored{model}, {rejected} rejected")
