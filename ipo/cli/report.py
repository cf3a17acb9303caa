"""`ipo report`: the pages of a run, made again from its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(help="Run folder, of a run that is done or under way.")],
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="With thumbnails of images, or without any.")
    ] = True,
    out: Annotated[Path | None, typer.Option("--out", help="Write the page there, and nothing in the folder.")] = None,
) -> None:
    """Make the report page of a run again, from the files in its folder alone.

    Examples:

      ipo report runs/caltech101-local-llama-16shot-seed1

      ipo report RUN --no-pictures --out report-to-send.html
    """
    from ipo.report.pages import REPORT_PAGE, page_values, write_report, write_reports
    from ipo.runs.folder import require_run
    from ipo.store.files import require_place

    require_run(run)
    if out is None and pictures:
        print(write_reports(run).resolve().as_uri())
        return
    place = out or run / REPORT_PAGE
    require_place(place)
    print(write_report(place, page_values(run, pictures)).resolve().as_uri())
