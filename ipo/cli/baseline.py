"""`ipo baseline`: fit a method that IPO is compared with, and test it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from ipo.cli import options
from ipo.cli.console import output
from ipo.errors import ConfigError
from ipo.runs.readers import BASELINE, method_reader


@options.for_settings(BASELINE)
def baseline(
    method: Annotated[str | None, typer.Argument(help="Name of a method; see --list.")] = None,
    *,
    given: options.Given,
    config: options.Config = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="An option of the method, such as epochs=10, or any setting. Repeatable."),
    ] = None,
    out: options.Out = None,
    resume: options.Resume = None,
    force: options.Force = False,
    list_methods: Annotated[bool, typer.Option("--list", help="Show the methods, or the options of one.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Fit a method that IPO is compared with, and test it on base and new classes.

    Options are the published ones unless --set says otherwise. Under torchrun, several processes share fine-tuning.

    Examples:

      ipo baseline --list

      ipo baseline coop --dataset caltech101 --shots 16

      ipo baseline coop --dataset caltech101 --set init=random --set n_ctx=16 --set epochs=50

      ipo baseline lipsum-ft --dataset pacs --domains photo --classes all --target pacs@art_painting
    """
    if list_methods:
        print_options(method) if method else print_methods()
        return
    own, general = split_assignments(assignments or [])
    if (method is None) == (resume is None):
        raise ConfigError("give a method, or --resume RUN", remedy="See: ipo baseline --list")
    options.check_resumption(resume, force, {"--config": config, "--out": out})

    from ipo.api import start
    from ipo.api.settings import make_settings, resumed_settings
    from ipo.cli import running
    from ipo.config import parse_assignments

    if resume is not None:
        settings = resumed_settings(start.reader_of(resume), resume, general, given)
        folder, result = start.resume_run(resume, settings, parse_assignments(own), force)
    else:
        assert method is not None
        settings = make_settings(method_reader(method), config, general, given)
        folder, result = start.start_run(method, settings, parse_assignments(own), out)
    running.show(result, folder, as_json)


def split_assignments(assignments: list[str]) -> tuple[list[str], list[str]]:
    """Those that are options of the method, and those that are settings of the run (`section.key=value`)."""
    from ipo.config import Settings

    general = [
        text for text in assignments if text.partition("=")[0].partition(".")[0].strip() in Settings.model_fields
    ]
    return [text for text in assignments if text not in general], general


def print_methods() -> None:
    """All methods with what they are and where they are from."""
    from ipo.methods import find_method
    from ipo.registry import available_methods

    table = Table()
    for heading in ("method", "what it is", "paper"):
        table.add_column(heading, no_wrap=heading == "method")
    for name in available_methods():
        method = find_method(name)
        table.add_row(name, method.summary, method.paper or "")
    output().print(table)


def print_options(name: str) -> None:
    """The options of a method with their defaults."""
    from ipo.cli.config import method_groups, print_tables

    print_tables(method_groups([name]))
    output().print("Give them by --set KEY=VALUE. Some defaults depend on dataset and shots, as published.")
