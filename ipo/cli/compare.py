"""`ipo compare`: one table over runs of any method."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ipo.cli import options
from ipo.errors import ConfigError, LLMError
from ipo.screen import say

if TYPE_CHECKING:
    from ipo.compare.rows import Row


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

    Examples:

      ipo compare runs/

      ipo compare runs/caltech101-* --reference zero-shot --format markdown --published

      ipo compare runs/ --words --fluency local-llama --offline
    """
    if fluency and not words:
        raise ConfigError("--fluency goes with --words")
    if words and form == "csv":
        raise ConfigError("--words is no part of a CSV table", remedy="Its column `sentences` has them; leave it out")
    from ipo.compare import rows as comparison
    from ipo.compare.tables import FORMATS, sentences, with_words
    from ipo.compare.trials import read_trials
    from ipo.files import write_atomic

    trials = [trial for folder in find_runs(runs) for trial in read_trials(folder, controls)]
    rows = comparison.compare(trials, reference)
    if published:
        extra = comparison.published_rows([row.dataset for row in rows], [trial.facts["shots"] for trial in trials])
        rows = in_dataset_order([*rows, *extra])
    table = FORMATS[form](rows, comparison.choose_reference(trials, reference))
    if words:
        table = with_words(table, sentences(rows, load_perplexity(fluency, offline) if fluency else None), form)
    if out is None:
        print(table)
    else:
        write_atomic(out, table + "\n")


def find_runs(paths: list[Path]) -> list[Path]:
    """Finished runs among `paths` and one level below them, in order of their names; paths without one are named.

    Raises `ConfigError` where no path has any.
    """
    found: list[Path] = []
    for path in paths:
        inside = [path] if (path / "result.json").is_file() else [file.parent for file in path.glob("*/result.json")]
        if not inside:
            say(f"left out, since it holds no result.json: {path}")
        found += sorted(inside)
    if not found:
        names = ", ".join(f"'{path}'" for path in paths)
        raise ConfigError(f"no finished run in {names}", remedy="Give folders that hold result.json")
    return list(dict.fromkeys(found))


def in_dataset_order(rows: list[Row]) -> list[Row]:
    """Rows with those of one dataset together, datasets in order of appearance."""
    order = list(dict.fromkeys(row.dataset for row in rows))
    return sorted(rows, key=lambda row: order.index(row.dataset))


def load_perplexity(spec: str, offline: bool) -> Callable[[list[str]], list[float]]:
    """Perplexity of texts under a local LLM."""
    from ipo.llm.base import LikelihoodModel
    from ipo.llm.load import load_llm

    settings = options.make_settings(None, None, {"llm": {"spec": spec}, "offline": offline or None})
    llm = load_llm(settings.llm, offline=settings.offline)
    if not isinstance(llm, LikelihoodModel):
        raise LLMError(f"'{spec}' cannot tell how likely a text is", remedy="Name a local model")
    return lambda texts: [math.exp(-value) for value in llm.mean_log_likelihood(texts)]
