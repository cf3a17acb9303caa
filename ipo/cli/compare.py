"""`ipo compare`: one table over runs of any method."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from ipo.cli import options
from ipo.cli.console import screen_width
from ipo.errors import ConfigError, LLMError
from ipo.screen import say


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
    from ipo.api.comparison import compared, read_runs
    from ipo.comparison.formats import FORMATS, as_text, with_words
    from ipo.comparison.tables import sentences
    from ipo.store.files import require_place, write_atomic

    if out is not None:
        require_place(out)
    trials, left_out = read_runs(runs, controls)
    for reason in left_out:
        say(f"left out: {reason}")
    rows, lines = compared(trials, reference, published)
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
