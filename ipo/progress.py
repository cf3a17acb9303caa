"""Progress bars on standard error: shown on a terminal, silent in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ipo.screen import is_silent

T = TypeVar("T")


def progress_bar() -> Progress:
    """A bar with count and time left, on standard error, gone when done; use it as a context manager."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=is_silent() or not console.is_terminal)


@contextmanager
def silent_pipes() -> Iterator[None]:
    """Inside, bars of other libraries show on a terminal only; they would fill a log with lines."""
    if sys.stderr.isatty() and not is_silent():
        yield
        return
    with redirect_stderr(StringIO()):
        yield


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Pass `items` on, one by one, with a bar."""
    with progress_bar() as bar:
        yield from bar.track(items, total=total, description=description)
