"""`ipo compare`: one table over runs of any method."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ipo.cli import options
from ipo.cli.console import screen_width
from ipo.errors import ConfigError, LLMError, RunError
from ipo.screen import say

if TYPE_CHECKING:
    from ipo.comparison.rows import Row
    from ipo.comparison.trials import Trial


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of run folders.")],
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="Method that differences are from. [default: zero-shot, or else the first]"),
    ] = None,
    form: Annotated[
        Literal["text", "markdown", "csv", "latex"], typer.Option("--format", help="How to print the table.")
    ] = "text",
    out: Annotated[Path | None, typer.Option("--out", help="Write the table to this file instead.")] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Add published figures as marked rows (ViT-B/16; never averaged in).")
    ] = False,
    controls: Annotated[
        bool, typer.Option("--controls", help="Show the controls of `ipo optimize` runs as well.")
    ] = False,
    words: Annotated[
        bool, typer.Option("--words", help="Also the sentence of each method: its prompt, or the nearest words.")
    ] = False,
    fluency: Annotated[
        str | None,
        typer.Option("--fluency", help="With --words: perplexity under this local LLM, such as local-llama."),
    ] = None,
    offline: options.Offline = False,
) -> None:
    """Compare finished runs: base, new and H over seeds, differences on the same test images, time and cost.

    A folder that holds no finished run, or a damaged one, is named and left out; the exit status is 1 then.

    Examples:

      ipo compare runs/

      ipo compare runs/caltech101-* --reference zero-shot --format markdown --published

      ipo compare runs/ --words --fluency local-llama --offline
    """
    if fluency and not words:
        raise ConfigError("--fluency goes with --words")
    if words and form == "csv":
        raise ConfigError("--words is no part of a CSV table", remedy="Its column `sentences` has them; leave it out")
    from ipo.comparison.formats import FORMATS, as_text, with_words
    from ipo.comparison.names import label_notes
    from ipo.comparison.rows import choose_reference
    from ipo.comparison.rows import compare as compare_trials
    from ipo.comparison.tables import notes, sentences
    from ipo.store.files import require_place, write_atomic

    if out is not None:
        require_place(out)
    trials, left_out = read_runs(runs, controls)
    rows = compare_trials(trials, reference)
    if published:
        rows = with_published(rows, trials)
    lines = [*notes(rows, choose_reference(trials, reference)), *label_notes(trials)]
    to_screen = out is None and form == "text"
    shape = (screen_width(), sys.stdout.encoding or "utf-8")
    table = as_text(rows, lines, *shape) if to_screen else FORMATS[form](rows, lines)
    if words:
        table = with_words(table, sentences(rows, load_perplexity(fluency, offline) if fluency else None), form)
    if out is None:
        print(table)
    else:
        write_atomic(out, table + "\n")
    if left_out:
        raise typer.Exit(1)


def read_runs(paths: list[Path], controls: bool) -> tuple[list[Trial], int]:
    """The trials of all finished runs, and how many folders were left out; each is named with the reason.

    Raises `ConfigError` where there is no finished run at all.
    """
    from ipo.comparison.trials import merge_twins, read_trials

    trials: list[Trial] = []
    left_out = 0
    for folder in find_runs(paths):
        try:
            trials += read_trials(folder, controls)
        except RunError as error:
            say(f"left out: {error}")
            left_out += 1
    if not trials:
        names = ", ".join(f"'{path}'" for path in paths)
        raise ConfigError(f"no finished run in {names}", remedy="Give folders that hold result.json")
    return merge_twins(trials), left_out


def find_runs(paths: list[Path]) -> list[Path]:
    """The folders that were named, or the runs one level below them where they are none, each once, by name."""
    found: dict[Path, Path] = {}
    for path in paths:
        inside = [path] if is_run(path) else sorted(folder for folder in path.glob("*") if is_run(folder))
        for folder in inside or [path]:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def is_run(folder: Path) -> bool:
    """Whether this is the folder of a run, finished or not, or what is left of one."""
    try:
        return any((folder / name).exists() for name in ("result.json", "run.json"))
    except OSError:
        return False


def with_published(rows: list[Row], trials: list[Trial]) -> list[Row]:
    """The rows and the published ones of their datasets; averages only over the same datasets."""
    from ipo.comparison.names import AVERAGE
    from ipo.comparison.rows import catalogue_places, published_rows

    places = catalogue_places(trials)
    extra = published_rows(places, [trial.facts["shots"] for trial in trials])
    datasets = {row.dataset for row in rows if row.dataset != AVERAGE}
    return in_dataset_order([*rows, *(row for row in extra if row.dataset != AVERAGE or set(places) == datasets)])


def in_dataset_order(rows: list[Row]) -> list[Row]:
    """Rows with those of one dataset together, datasets in order of appearance."""
    order = list(dict.fromkeys(row.dataset for row in rows))
    return sorted(rows, key=lambda row: order.index(row.dataset))


def load_perplexity(spec: str, offline: bool) -> Callable[[list[str]], list[float]]:
    """Perplexity of texts under a local LLM."""
    from ipo.config import load_settings
    from ipo.llm.base import LikelihoodModel
    from ipo.llm.load import load_llm

    settings = load_settings(None, {"llm": {"spec": spec}} | ({"offline": True} if offline else {}))
    llm = load_llm(settings.llm, offline=settings.offline)
    if not isinstance(llm, LikelihoodModel):
        raise LLMError(f"'{spec}' cannot tell how likely a text is", remedy="Name a local model")
    return lambda texts: [math.exp(-value) for value in llm.mean_log_likelihood(texts)]
