"""`ipo verify`: is this implementation right? Fixed prompts against their published accuracy."""

from __future__ import annotations

import typer
from rich.table import Table
from rich.text import Text

from ipo.cli import options
from ipo.cli.console import output, print_json
from ipo.errors import DataError
from ipo.runs.readers import VERIFY
from ipo.screen import counted, printable


@options.for_settings(VERIFY)
def verify(
    given: options.Given,
    config: options.Config = None,
    assignments: options.Assignments = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare the base and new accuracy of fixed prompts with the published figures, on every dataset that is here.

    Nothing is learned there, so with the weights of the papers (the default model) each figure must be met within
    half a point; the exit status is 1 if one is not. With another model the figures are shown as not comparable.

    Examples:

      ipo verify

      ipo verify --data-root ~/data --set clip.precision=float16
    """
    from ipo.api.settings import make_settings
    from ipo.runs.check import check

    settings = make_settings(VERIFY, config, assignments, given)
    check(VERIFY, settings)

    from ipo.clip.features import feature_store
    from ipo.clip.load import load_clip
    from ipo.fixed_prompts import TOLERANCE, present_datasets, read_datasets, verify_dataset

    names = present_datasets(settings.data.root)
    if not names:
        raise DataError("none of the datasets with published figures is here", remedy="See `ipo datasets`")
    found = read_datasets(names, settings.data, settings.seed)
    model = load_clip(settings.clip, offline=settings.offline)
    store = feature_store(settings.clip, model, skip_unreadable=settings.data.skip_unreadable)
    verdicts = [verdict for dataset in found for verdict in verify_dataset(dataset, model, store)]
    wrong = [verdict for verdict in verdicts if not verdict.agrees]
    if as_json:
        print_json([verdict.to_json() for verdict in verdicts])
        raise typer.Exit(1 if wrong else 0)
    view = Table(title=f"{model.fingerprint.name}: test accuracy of fixed prompts, %", title_justify="left")
    for heading in ("dataset", "prompt", "classes", "expected", "got", "off by", "verdict"):
        view.add_column(heading, overflow="fold", no_wrap=heading != "prompt")
    for row in verdicts:
        verdict = row.note.partition(":")[0] or ("agrees" if row.agrees else f"beyond {TOLERANCE} points")
        figures = (f"{row.expected:.2f}", f"{row.got:.2f}", f"{row.difference:+.2f}")
        view.add_row(*(Text(printable(text)) for text in (row.dataset, row.prompt, row.half, *figures, verdict)))
    console = output()
    console.print(view)
    for dataset, note in dict.fromkeys((row.dataset, row.note) for row in verdicts if row.note):
        console.print(printable(f"{dataset}: {note}"))
    compared = sum(not verdict.note for verdict in verdicts)
    console.print(
        f"{compared - len(wrong)} of {compared} comparable figures agree; {counted(len(names), 'dataset')} here."
    )
    raise typer.Exit(1 if wrong else 0)
