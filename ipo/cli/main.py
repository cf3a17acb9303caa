"""The `ipo` command. Commands import what they need when they run, so that `--help` answers at once."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Annotated

import typer

from ipo import __version__
from ipo.cli import (
    baseline,
    classify,
    compare,
    config,
    datasets,
    describe,
    doctor,
    evaluate,
    export,
    history,
    optimize,
    report,
    serve,
    show,
    verify,
)
from ipo.errors import IpoError, RunError
from ipo.screen import say, show_only_our_warnings, write_plainly
from ipo.store.disk import reason_of

SPINS = "20000"
"""Turns that a torch thread waits busily for the others: torch's default loses many seconds where cores are shared."""

INTERRUPTED = 130
"""The exit status after Ctrl-C, with which typer says that it caught one."""

app = typer.Typer(
    name="ipo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Finds human-readable prompts for CLIP-like models with a language model; compares them with learned ones.",
    epilog="Features, captions and converted models are kept in IPO_CACHE (default: ~/.cache/ipo; off: not at all).",
)
app.command()(optimize.optimize)
app.command()(history.history)
app.command()(show.show)
app.command()(show.tree)
app.command()(report.report)
app.command()(serve.serve)
app.command()(evaluate.evaluate)
app.command()(export.export)
app.command()(baseline.baseline)
app.command()(describe.describe)
app.command()(classify.classify)
app.command()(compare.compare)
app.command()(verify.verify)
app.command()(config.config)
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
    show_only_our_warnings()
    sys.exit(_run())


def _run() -> int:
    """The exit status of the command, after all that it printed is written."""
    try:
        status = _call()
        sys.stdout.flush()
        return _end("ipo: interrupted", status) if status == INTERRUPTED else status
    except IpoError as error:
        return _end(f"ipo: {error}", error.exit_code)
    except KeyboardInterrupt:
        return _end("ipo: interrupted", INTERRUPTED)
    except BrokenPipeError:
        return _end("", 141)
    except OSError as error:  # a last net: what is written or read on purpose says more
        what = f"cannot read or write: {reason_of(error)} ({error.filename})"
        return _end(f"ipo: {what if error.filename else f'cannot write the output: {reason_of(error)}'}", 1)


def _call() -> int:
    """Run the command. Raises `RunError` where there is no standard output to write to."""
    if sys.stdout is None:
        raise RunError("standard output is closed", remedy="Redirect it: > /dev/null")
    try:
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _end(line: str, status: int) -> int:
    """Say why it ended, where it can be said; nothing else is written, not even what still waits to be."""
    with suppress(OSError, AttributeError):
        if line:
            say(line)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, AttributeError):
            with suppress(OSError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return status
