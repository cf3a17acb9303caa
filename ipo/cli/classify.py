"""`ipo classify`: what is on these pictures, by the result of a run."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ipo.cli.console import output, print_json
from ipo.config import Device
from ipo.errors import ConfigError
from ipo.screen import printable

if TYPE_CHECKING:
    from ipo.predict.classify import Prediction

NONE = "none of these"


def classify(
    images: Annotated[list[str], typer.Argument(help="Pictures, folders of them, or - for paths on standard input.")],
    run: Annotated[Path, typer.Option("--run", help="Folder of a finished run.")],
    top: Annotated[int, typer.Option("--top", min=1, help="So many of the most likely classes.")] = 1,
    none: Annotated[
        bool, typer.Option("--none", help="Say 'none of these' where no class is likely enough for its own threshold.")
    ] = False,
    device: Annotated[Device | None, typer.Option("--device", help="Where CLIP runs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Classify pictures by what a run found: a table on a terminal, CSV in a pipe.

    Confidence is a probability, calibrated on the shots of the run. A picture that cannot be read has a row that says
    why; the exit status is 1 then. With --none each class has a threshold of its own: at most a tenth of the pictures
    of the class should fall below it. result.json tells how many of the shots it turned down when their class was away.

    Examples:

      ipo classify --run runs/photos-gpt-4o-mini-16shot-seed1 new/ --top 3

      ipo classify --run RUN one.jpg two.png --none --json | jq -r .class

      find . -name '*.jpg' | ipo classify --run RUN - > classes.csv
    """
    from ipo.api.loaded import load

    found = load(run)
    rows = found.predictions(named(images), none=none, device=device)
    failed = False

    def seen() -> Iterator[Prediction]:
        nonlocal failed
        for row in rows:
            failed |= row.error is not None
            yield row

    if as_json:
        for row in seen():
            print_json(as_record(row, top), indent=None)
    elif sys.stdout.isatty():
        print_table(seen(), top)
    else:
        print_csv(seen(), top)
    if failed:
        raise typer.Exit(1)


def named(images: Iterable[str]) -> list[str]:
    """The pictures that are named, with the lines of standard input for `-`. Raises `ConfigError` for none."""
    found = [one for image in images for one in (read_lines() if image == "-" else [image])]
    if not found:
        raise ConfigError("no picture is named", remedy="Give pictures or folders, or paths on standard input for -")
    return found


def read_lines() -> list[str]:
    """The lines of standard input, none of them empty; names of files in whatever encoding."""
    lines = [] if sys.stdin is None else sys.stdin.buffer.read().splitlines()
    return [os.fsdecode(line) for line in lines if line.strip()]


def as_record(row: Prediction, top: int) -> dict[str, Any]:
    """One line of JSON."""
    likely = [{"class": name, "confidence": round(value, 6)} for name, value in row.top(top)]
    confidence = None if row.confidence is None else round(row.confidence, 6)
    return row.to_json() | {"confidence": confidence, "top": likely}


def cells(row: Prediction, top: int) -> list[str]:
    """Image, class and confidence, then the same of the next classes, and the error."""
    likely = [(name, f"{value:.4f}") for name, value in row.top(top)]
    if likely and row.classname is None:
        likely = [(NONE, ""), *likely][:top]
    pairs = [cell for pair in likely for cell in pair]
    return [row.image, *pairs, *[""] * (2 * top - len(pairs)), row.error or ""]


def headings(top: int) -> list[str]:
    """What the columns of `cells` are called."""
    more = [name for place in range(2, top + 1) for name in (f"class_{place}", f"confidence_{place}")]
    return ["image", "class", "confidence", *more, "error"]


def print_csv(rows: Iterable[Prediction], top: int) -> None:
    """Rows as they are made, with a heading."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(headings(top))
    for row in rows:
        writer.writerow(cells(row, top))


def print_table(rows: Iterable[Prediction], top: int) -> None:
    """All rows at the end."""
    table = Table()
    for heading in headings(top):
        table.add_column(heading.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in cells(row, top)))
    output().print(table)
