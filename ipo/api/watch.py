"""Progress of a search on standard error: a live picture on a terminal, a line a step elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from ipo.progress import notebook_line
from ipo.screen import is_silent, printable, say

if TYPE_CHECKING:
    from ipo.prompt import HistoryEntry
    from ipo.search.record import Record

_LINES = 8
"""Candidates that are shown at once."""


class _Bar(Progress):
    """A bar with some lines of text below it, each cut at the width of the terminal."""

    below: Sequence[str] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, then the lines."""
        yield from super().get_renderables()
        yield from (Text(line, no_wrap=True, overflow="ellipsis") for line in self.below)


class Watch:
    """What a search is at: how far it is, the best so far, and the prompts that are tried with their accuracy."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        console = Console(stderr=True, force_jupyter=False)
        self.live = console.is_terminal and not is_silent()
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
        )
        self.bar = _Bar(*columns, console=console, disable=not self.live)
        self.task = self.bar.add_task("scoring the first prompts", total=self.steps)
        self.started = time.monotonic()
        self.notebook = notebook_line()

    def __enter__(self) -> Watch:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.below = ()
        self.bar.stop()

    def trying(self, prompts: Sequence[str]) -> None:
        """Show the prompts that are being scored."""
        self._show(f"      ?  {prompt}" for prompt in prompts)

    def __call__(self, record: Record) -> None:
        """Show the state after a step."""
        history, usage, best = record.history, record.usage(), record.history.best()
        proposed = len([entry for entry in history if entry.step > 0])
        accepted = len([entry for entry in history.scored() if entry.step > 0])
        share = f"{100 * accepted / proposed:.0f}%" if proposed else "-"
        word = "best confidence" if best.score and best.score.metric == "confidence" else "best"
        text = f"{word} {_value(best)}  accepted {share}  tokens {usage.tokens:,}"
        self.bar.update(self.task, completed=record.last_step, description=text)
        tried = [entry for entry in history.ranked() if entry.step == record.last_step]
        self._show(f"  {_value(entry)}  {entry.text}" for entry in tried)
        if self.notebook is not None:
            took = f"{time.monotonic() - self.started:.0f} s"
            self.notebook(f"step {record.last_step}/{self.steps}  {text}  {took}\n" + "\n".join(self.bar.below))
        elif not self.live:
            took = f"{time.monotonic() - self.started:.0f} s"
            found = f"  tried: {_value(tried[0])} {printable(tried[0].text)}" if tried else ""
            say(f"step {record.last_step}/{self.steps}  {text}  {took}{found}")

    def _show(self, lines: Iterable[str]) -> None:
        shown = [printable(line) for line in lines]
        more = [f"         and {len(shown) - _LINES} more"] if len(shown) > _LINES else []
        self.bar.below = [*shown[:_LINES], *more]
        self.bar.refresh()


def _value(entry: HistoryEntry) -> str:
    assert entry.score is not None
    return f"{100 * entry.score.value:.1f}%"
