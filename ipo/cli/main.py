"""The `ipo` command. Commands import what they need when they run, so that `--help` answers at once."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ipo import __version__
from ipo.cli import baseline, compare, datasets, doctor, evaluate, history, optimize, verify
from ipo.errors import IpoError
from ipo.screen import log_to_stderr, say, write_plainly

SPINS = "20000"
"""Turns that a torch thread waits busily for the others: torch's default loses many seconds where cores are shared."""

app = typer.Typer(
    name="ipo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Finds human-readable prompts for CLIP-like models with a language model; compares them with learned ones.",
)
app.command()(optimize.optimize)
app.command()(history.history)
app.command()(evaluate.evaluate)
app.command()(baseline.baseline)
app.command()(compare.compare)
app.command()(verify.verify)
app.command()(doctor.doctor)
app.add_typer(datasets.app, name="datasets")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ipo {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


def main() -> None:
    """Entry point: errors with a remedy become one line on standard error and an exit status."""
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when torch is imported, which is later
    write_plainly()
    log_to_stderr()
    try:
        app()
    except IpoError as error:
        say(f"ipo: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say("ipo: interrupted")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
