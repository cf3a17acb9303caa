"""`ipo evaluate`: the test accuracy of prompts of one's own."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from ipo.cli import options
from ipo.cli.console import output, print_json
from ipo.runs.readers import EVALUATE
from ipo.screen import counted, printable


@options.for_settings(EVALUATE)
def evaluate(
    prompt: Annotated[list[str], typer.Option("--prompt", "-p", help='Such as "a photo of a <CLASS>." Repeatable.')],
    given: options.Given,
    split: Annotated[
        Literal["base", "new", "all"], typer.Option("--split", help="Which classes compete, on their images.")
    ] = "all",
    images: Annotated[
        Literal["test", "all"],
        typer.Option("--images", help="The test images, or all: for prompts that were found without any of them."),
    ] = "test",
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Also the mean of all the prompts given.")] = False,
    config: options.Config = None,
    assignments: options.Assignments = None,
    as_json: options.AsJson = False,
) -> None:
    """Test prompts: zero-shot accuracy on the test images of a dataset, or on all of them.

    With --metric map, of a table with several labels a picture: mean average precision.

    Where the split is drawn, as for most pictures of one's own, another seed tests on images that a run may have seen.

    Examples:

      ipo evaluate --prompt "a photo of a <CLASS>." --dataset caltech101 --split base

      ipo evaluate -p "a drawing of a <CLASS>." -p "<CLASS>" --dataset folder:photos/ --ensemble --images all
    """
    from ipo.api.settings import make_settings
    from ipo.prompt import METRIC_WORDS, Prompt
    from ipo.runs.check import check

    settings = make_settings(EVALUATE, config, assignments, given)
    for text in prompt:
        Prompt(text)
    check(EVALUATE, settings)

    from ipo.fixed_prompts import evaluate_prompts
    from ipo.report.pages import with_interval

    rows = evaluate_prompts(settings, prompt, split, ensemble, images)
    if as_json:
        print_json([row.to_json() for row in rows])
        return
    count, source = rows[0].evaluation.n, rows[0].split_source
    used = f"{counted(count, 'test image')}, split {source}" if images == "test" else counted(count, "image")
    console = output()
    words = f"{settings.data.dataset}, {split} classes, {used}, {settings.clip.model}"
    console.print(printable(words), soft_wrap=True)
    table = Table()
    table.add_column("prompt", overflow="fold")
    metric = METRIC_WORDS[rows[0].evaluation.metric]
    table.add_column(f"{metric}, % [95% interval]", justify="right", no_wrap=True)
    for row in rows:
        table.add_row(Text(printable(row.prompt)), with_interval(row.evaluation))
    console.print(table)
    if absent := rows[0].evaluation.absent:
        console.print(printable(f"Left out, since no image has them: {', '.join(absent)}"), soft_wrap=True)
