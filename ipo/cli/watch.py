"""Progress of a search on standard error."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ipo.screen import say

if TYPE_CHECKING:
    from ipo.record import Record


class Watch:
    """Progress of a search on standard error: a live bar on a terminal, a line a step elsewhere."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        console = Console(stderr=True)
        self.live = console.is_terminal
        columns = (
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
        )
        self.bar = Progress(*columns, console=console, disable=not self.live)
        self.task = self.bar.add_task("scoring the first prompts", total=self.steps)
        self.started = time.monotonic()

    def __enter__(self) -> Watch:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def __call__(self, record: Record) -> None:
        """Show the state after a step."""
        history, usage, best = record.history, record.usage(), record.history.best()
        proposed = len([entry for entry in history if entry.step > 0])
        accepted = len([entry for entry in history.scored() if entry.step > 0])
        share = f"{100 * accepted / proposed:.0f}%" if proposed else "-"
        assert best.score is not None
        text = f"best {100 * best.score.accuracy:.1f}%  accepted {share}  tokens {usage.tokens:,}"
        self.bar.update(self.task, completed=record.last_step, description=text)
        if not self.live:
            say(f"step {record.last_step}/{self.steps}  {text}  {time.monotonic() - self.started:.0f} s")
