"""A run on disk: the history, and beside it the log of what the LLM was asked and answered. Resuming reads both.

Order of writing in a step: first the replies, then the history lines. A step whose history lines are not all there
is judged again from its logged replies, so a killed run loses nothing that was paid for.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ipo.config import SelectionRule
from ipo.errors import RunError
from ipo.files import append_rows, read_rows, truncate_rows
from ipo.history import History
from ipo.llm.base import Message, Reply

HISTORY_FILE = "history.jsonl"
REPLIES_FILE = "replies.jsonl"


@dataclass(frozen=True)
class Usage:
    """What a run has used so far."""

    steps: int = 0
    proposals: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Prompt and reply tokens together."""
        return self.prompt_tokens + self.completion_tokens


class Record:
    """History and reply log of one run; in memory only where `folder` is None."""

    def __init__(self, rule: SelectionRule, folder: Path | None = None) -> None:
        self.folder = folder
        self.history = History(rule, folder / HISTORY_FILE if folder else None)
        self._asked: dict[int, dict[str, Any]] = {}
        self._extra_seconds: dict[int, float] = {}

    @classmethod
    def resume(cls, rule: SelectionRule, folder: Path, first_prompts: int) -> Record:
        """The record of a broken or ended run, cut back to its last whole step."""
        record = cls(rule, folder)
        record.history = History.read(rule, folder / HISTORY_FILE)
        rows = read_rows(folder / REPLIES_FILE)
        truncate_rows(folder / REPLIES_FILE, len(rows))
        record._asked = {row["step"]: row for row in rows}
        if sorted(record._asked) != list(range(1, len(rows) + 1)):
            raise RunError("the reply log misses steps", where=str(folder / REPLIES_FILE), remedy="Start a new run")
        record.history.keep_steps(record._last_whole_step(first_prompts))
        return record

    def _last_whole_step(self, first_prompts: int) -> int:
        """The last step up to which every step has all its history lines; -1 if not even the first prompts."""
        found = Counter(entry.step for entry in self.history)
        expected = {0: first_prompts} | {step: len(row["replies"]) for step, row in self._asked.items()}
        step = -1
        while step + 1 in expected and found[step + 1] == expected[step + 1]:
            step += 1
        return step

    @property
    def last_step(self) -> int:
        """The last step whose candidates are in the history; 0 after the first prompts, -1 before them."""
        return self.history.entries[-1].step if len(self.history) else -1

    def replies(self, step: int) -> list[Reply] | None:
        """The logged replies of a step, or None where it has not been asked yet."""
        row = self._asked.get(step)
        return [Reply(**reply) for reply in row["replies"]] if row else None

    def log_replies(self, step: int, messages: Sequence[Message], replies: Sequence[Reply], seconds: float) -> None:
        """Keep what was asked and what came back, before anything is made of it."""
        row = {
            "step": step,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "seconds": round(seconds, 3),
            "messages": [asdict(message) for message in messages],
            "replies": [asdict(reply) for reply in replies],
        }
        if self.folder is not None:
            append_rows(self.folder / REPLIES_FILE, [row])
        self._asked[step] = row

    def log_scoring(self, step: int, seconds: float) -> None:
        """Count the time that judging and scoring a step took, in this process."""
        self._extra_seconds[step] = seconds

    def usage(self) -> Usage:
        """Totals over all steps that were asked."""
        replies = [reply for row in self._asked.values() for reply in row["replies"]]
        return Usage(
            steps=len(self._asked),
            proposals=len(replies),
            prompt_tokens=sum(reply["prompt_tokens"] for reply in replies),
            completion_tokens=sum(reply["completion_tokens"] for reply in replies),
            seconds=sum(row["seconds"] for row in self._asked.values()) + sum(self._extra_seconds.values()),
        )
