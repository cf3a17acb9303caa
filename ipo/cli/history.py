"""`ipo history`: what a run tried, as a table or as JSON lines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from ipo.cli.console import output, print_json
from ipo.errors import RunError


def history(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    by: Annotated[Literal["score", "step"], typer.Option("--by", help="Order: best first, or as they came.")] = "score",
    top: Annotated[int | None, typer.Option("--top", min=1, help="Show so many only.")] = None,
    rejects: Annotated[bool, typer.Option("--rejects", help="Show the rejected proposals and why.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Show the prompts of a run with their training scores.

    Examples:

      ipo history runs/caltech101-local-llama-16shot-seed1 --top 10

      ipo history runs/caltech101-local-llama-16shot-seed1 --rejects

      ipo history RUN --json | jq -r .text
    """
    from ipo.search.record import HISTORY_FILE

    path = run / HISTORY_FILE
    if not os.path.lexists(path):
        raise RunError(f"no {HISTORY_FILE} here", where=str(run), remedy="Give the folder of an `ipo optimize` run")

    from ipo.prompt import METRIC_WORDS
    from ipo.report.pages import history_rows, shown_entry
    from ipo.runs.folder import read_settings, recorded_model
    from ipo.screen import printable
    from ipo.search.history import History

    record = History.read(read_settings(run).search.select, path)
    entries = history_rows(record, by, top, rejects)
    if as_json:
        for entry in entries:
            print_json(entry.to_json(), indent=None)
        return
    metrics = [entry.score.metric for entry in entries if entry.score] or ["accuracy"]
    table, word = Table(), METRIC_WORDS[metrics[0]]
    for heading in ("step", "reason") if rejects else (f"{word}, %", "95% interval", "loss", "step"):
        words = heading == "reason"
        table.add_column(heading, justify="left" if words else "right", no_wrap=not words, overflow="fold")
    table.add_column("reply" if rejects else "prompt", overflow="fold")
    for entry in map(shown_entry, entries):
        if entry.score is None:
            table.add_row(str(entry.step), Text(entry.reason or ""), Text(entry.text))
        else:
            score = entry.score
            interval = f"{100 * score.low:.1f} - {100 * score.high:.1f}"
            table.add_row(f"{100 * score.value:.2f}", interval, f"{score.loss:.4f}", str(entry.step), Text(entry.text))
    output().print(table)
    model = recorded_model(run)
    print(
        f"{len(record.scored())} scored{f' by {printable(model)}' if model else ''}, {len(record.rejects())} rejected"
    )
