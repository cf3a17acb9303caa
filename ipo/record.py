"""A run on disk: the history, and beside it the log of what the LLM was asked and answered. Resuming reads both.

Order of writing in a step: first the replies, then the history lines. A step whose history lines are not all there
is judged again from its logged replies, so a killed run loses nothing that was paid for.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, ClassVar

from ipo.config import SelectionRule
from ipo.errors import RunError
from ipo.files import EXACT, append_rows, checked, parse_rows, truncate_rows
from ipo.history import History
from ipo.llm.base import UNPAID, Message, Reply, Spent

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
    captions: Spent = UNPAID
    """What the captions took before the first step."""

    @property
    def tokens(self) -> int:
        """Prompt and reply tokens together, those of the captions included."""
        return self.prompt_tokens + self.completion_tokens + self.captions.tokens


@dataclass(frozen=True)
class Answers:
    """What came back in one step, and how long it took in seconds."""

    step: int
    replies: tuple[Reply, ...]
    seconds: float

    __pydantic_config__: ClassVar = EXACT

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Answers:
        """One line of the reply log. Raises `ValueError` for another shape."""
        return _answers({name: value for name, value in row.items() if name not in ("time", "messages")})


_answers = checked(Answers)


class Record:
    """History and reply log of one run; in memory only where `folder` is None. `captions` is what those took."""

    def __init__(self, rule: SelectionRule, folder: Path | None = None, captions: Spent = UNPAID) -> None:
        self.folder = folder
        self.history = History(rule, folder / HISTORY_FILE if folder else None)
        self._asked: dict[int, Answers] = {}
        self._extra_seconds: dict[int, float] = {}
        self._captions = captions

    @classmethod
    def resume(
        cls, rule: SelectionRule, folder: Path, first_prompts: Sequence[str], captions: Spent = UNPAID
    ) -> Record:
        """The record of a broken or ended run, cut back to its last whole step.

        Raises `RunError`, and cuts nothing, where the files are damaged or do not belong together.
        """
        record = cls(rule, folder, captions)
        record.history = History.read(rule, folder / HISTORY_FILE)
        answers = parse_rows(folder / REPLIES_FILE, Answers.from_json)
        if [row.step for row in answers] != list(range(1, len(answers) + 1)):
            raise _damage("the reply log misses steps", folder / REPLIES_FILE)
        record._asked = {row.step: row for row in answers}
        last = record._last_whole_step(first_prompts)
        truncate_rows(folder / REPLIES_FILE, len(answers))
        record.history.keep_steps(last)
        return record

    def _last_whole_step(self, first_prompts: Sequence[str]) -> int:
        """The last step with all its history lines; -1 if not even the first prompts. Only one may come after it.

        Replies are on disk before the history goes on, so a history that is ahead of them was not left by a crash.
        """
        place = self.history.path or Path(HISTORY_FILE)
        sizes = [len(first_prompts), *(len(row.replies) for row in self._asked.values())]
        expected = [step for step, size in enumerate(sizes) for _ in range(size)]
        steps = [entry.step for entry in self.history]
        if steps != expected[: len(steps)]:
            raise _damage("the history does not fit the reply log beside it", place)
        first = [entry.text for entry in self.history if entry.step == 0]
        if first != list(first_prompts[: len(first)]):
            raise _damage("the history begins with other prompts than the settings", place)
        return sum(end <= len(steps) for end in accumulate(sizes)) - 1

    @property
    def last_step(self) -> int:
        """The last step whose candidates are in the history; 0 after the first prompts, -1 before them."""
        return self.history.entries[-1].step if len(self.history) else -1

    def replies(self, step: int) -> list[Reply] | None:
        """The logged replies of a step, or None where it has not been asked yet."""
        return list(self._asked[step].replies) if step in self._asked else None

    def log_replies(self, step: int, messages: Sequence[Message], replies: Sequence[Reply], seconds: float) -> None:
        """Keep what was asked and what came back, before anything is made of it."""
        answers = Answers(step, tuple(replies), round(seconds, 3))
        row = {
            "step": step,
            "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "seconds": answers.seconds,
            "messages": [asdict(message) for message in messages],
            "replies": [asdict(reply) for reply in replies],
        }
        if self.folder is not None:
            append_rows(self.folder / REPLIES_FILE, [row])
        self._asked[step] = answers

    def log_scoring(self, step: int, seconds: float) -> None:
        """Count the time that judging and scoring a step took, in this process."""
        self._extra_seconds[step] = seconds

    def usage(self) -> Usage:
        """Totals over all steps that were asked, and what the captions took."""
        replies = [reply for row in self._asked.values() for reply in row.replies]
        return Usage(
            steps=len(self._asked),
            proposals=len(replies),
            prompt_tokens=sum(reply.prompt_tokens for reply in replies),
            completion_tokens=sum(reply.completion_tokens for reply in replies),
            seconds=sum(row.seconds for row in self._asked.values()) + sum(self._extra_seconds.values()),
            captions=self._captions,
        )


def _damage(what: str, place: Path) -> RunError:
    return RunError(what, where=str(place), remedy="Restore the files of the run, or start a new run")
