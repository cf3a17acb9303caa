"""Progress bars on standard error: shown on a terminal, a line below the cell of a notebook, silent in a pipe."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ipo.screen import is_silent

T = TypeVar("T")


_PAUSE = 0.5
"""Seconds between two pictures of a bar in a notebook."""


def notebook_line() -> Callable[[str], None] | None:
    """Shows a text below the cell of a notebook, each in the place of the last; None elsewhere, and in silence."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    if is_silent() or not hasattr(shell, "kernel"):
        return None
    display = importlib.import_module("IPython.display").display
    handle: Any = display({"text/plain": ""}, raw=True, display_id=True)
    return lambda text: handle.update({"text/plain": text}, raw=True)


class _NotebookBar(Progress):
    """A bar as a line of text, gone when done; nothing else works in every notebook without further packages."""

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__(disable=True, auto_refresh=False)
        self._show_line, self._shown = show, 0.0

    def refresh(self) -> None:
        """Show how far it is, not too often."""
        if time.monotonic() - self._shown > _PAUSE:
            self._shown = time.monotonic()
            lines = (f"{task.description} {task.completed:g}/{task.total or 0:g}" for task in self.tasks)
            self._show_line("\n".join(lines))

    def update(self, *arguments: Any, **options: Any) -> None:
        """As that of a bar."""
        super().update(*arguments, **options)
        self.refresh()

    def stop(self) -> None:
        """Take it away."""
        super().stop()
        self._show_line("")


def progress_bar() -> Progress:
    """A bar with count and time left, on standard error, gone when done; use it as a context manager."""
    if (show := notebook_line()) is not None:
        return _NotebookBar(show)
    console = Console(stderr=True, force_jupyter=False)
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
