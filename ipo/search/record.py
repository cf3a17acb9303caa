"""A run on disk: the history, and beside it the log of what the LLM was asked and answered. Resuming reads both.

A step has one question or several, and the log a line for each. Order of writing in a step: first the replies, then
the history lines. A step whose history lines are not all there is judged again from its logged replies. Replies that
are paid for one by one are kept in a file beside the log as they come, until their question is answered as a whole. So
a killed run loses nothing that has arrived.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate, pairwise
from pathlib import Path

from ipo.config import SelectionRule
from ipo.errors import RunError
from ipo.llm.base import UNPAID, Message, Reply, Spent, Usage
from ipo.search.history import History
from ipo.search.replies import Answers, Kept, Pending
from ipo.store.disk import writing
from ipo.store.files import append_rows, parse_rows, truncate_rows

HISTORY_FILE = "history.jsonl"
REPLIES_FILE = "replies.jsonl"
PENDING_FILE = "replies.pending.jsonl"
"""The replies so far of the step that is under way: a line for the question, then one a reply."""


class Record:
    """History and reply log of one run; in memory only where `folder` is None. `captions` is what those took."""

    def __init__(self, rule: SelectionRule, folder: Path | None = None, captions: Spent = UNPAID) -> None:
        self.folder = folder
        self.history = History(rule, folder / HISTORY_FILE if folder else None)
        self._asked: dict[tuple[int, int], Answers] = {}
        self._pending: Pending | None = None
        self._extra_seconds: dict[int, float] = {}
        self._captions = captions

    @classmethod
    def read(cls, rule: SelectionRule, folder: Path, first_prompts: Sequence[str], captions: Spent = UNPAID) -> Record:
        """The record of a new, broken or ended run, up to its last whole step; nothing is cut from its files.

        Raises `RunError` where the files are damaged or do not belong together.
        """
        record = cls(rule, folder, captions)
        record.history = History.read(rule, folder / HISTORY_FILE)
        answers = parse_rows(folder / REPLIES_FILE, Answers.from_json)
        places = [(0, 0), *((row.step, row.ask) for row in answers)]
        if not all(_follows(*two) for two in pairwise(places)):
            raise _damage("the reply log misses steps", folder / REPLIES_FILE)
        record._asked = dict(zip(places[1:], answers, strict=True))
        record._pending = pending = Pending.read(folder / PENDING_FILE)
        asked = pending is None or (pending.step, pending.ask) in record._asked
        if pending is not None and not asked and not _follows(places[-1], (pending.step, pending.ask)):
            raise _damage("replies to a step were kept, and the reply log misses steps before", folder / REPLIES_FILE)
        last = record._last_whole_step(first_prompts)
        record.history.entries = [entry for entry in record.history if entry.step <= last]
        return record

    @classmethod
    def resume(
        cls, rule: SelectionRule, folder: Path, first_prompts: Sequence[str], captions: Spent = UNPAID
    ) -> Record:
        """What `read` returns, to go on with: its files are cut back to the last whole step."""
        record = cls.read(rule, folder, first_prompts, captions)
        truncate_rows(folder / REPLIES_FILE, len(record._asked))
        record._take_up(record._pending)
        record.history.keep_steps(record.last_step)
        return record

    def _last_whole_step(self, first_prompts: Sequence[str]) -> int:
        """The last step with all its history lines; -1 if not even the first prompts. Only one may come after it.

        Replies are on disk before the history goes on, so a history that is ahead of them was not left by a crash.
        """
        place = self.history.path or Path(HISTORY_FILE)
        sizes = [len(first_prompts)] + [0] * (max((step for step, _ in self._asked), default=0))
        for (step, _), row in self._asked.items():
            sizes[step] += len(row.replies)
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

    def next_place(self) -> tuple[int, int]:
        """The step and place of a question more behind the last whole step. Raises `RunError` in the midst of one."""
        step = max(1, self.last_step)
        if self._pending is not None or any(asked > step for asked, _ in self._asked) or self.last_step < 0:
            where = str(self.folder or HISTORY_FILE)
            raise RunError("a step of the run is under way", where=where, remedy="Go on with the run first")
        return step, sum(asked == step for asked, _ in self._asked)

    def replies(self, step: int, ask: int) -> list[Reply] | None:
        """The logged replies to a question of a step, or None where it has not been asked yet."""
        return list(self._asked[step, ask].replies) if (step, ask) in self._asked else None

    def begin(self, step: int, ask: int, messages: Sequence[Message]) -> Mapping[int, Reply]:
        """The replies by place that an earlier process kept of this question, if it asked the same."""
        asked, pending = [asdict(message) for message in messages], self._pending
        if pending is None or (pending.step, pending.ask, pending.messages) != (step, ask, asked):
            self._forget_pending()
            self._pending = pending = Pending(step, ask, asked)
        return dict(pending.replies)

    def keep(self, index: int, reply: Reply, seconds: float) -> None:
        """Put one reply of the step that was begun on disk, `seconds` after asking; a failure to answer is not kept."""
        assert self._pending is not None, "keep follows begin"
        if reply.error is not None:
            return
        kept = Kept(index, round(self._pending.seconds + seconds, 3), reply)
        rows = [asdict(kept)]
        if not self._pending.replies:
            pending = self._pending
            asked = {"step": pending.step, "ask": pending.ask, "time": _now(), "messages": pending.messages}
            rows.insert(0, asked)
        if self.folder is not None:
            append_rows(self.folder / PENDING_FILE, rows)
        self._pending.replies[index] = reply

    def log_replies(
        self, step: int, ask: int, messages: Sequence[Message], replies: Sequence[Reply], seconds: float
    ) -> None:
        """Keep what was asked and what came back, before anything is made of it. `seconds` are this process's."""
        before = self._pending.seconds if self._pending else 0.0
        answers = Answers(step, tuple(replies), round(before + seconds, 3), ask)
        row = {
            "step": step,
            "ask": ask,
            "time": _now(),
            "seconds": answers.seconds,
            "messages": [asdict(message) for message in messages],
            "replies": [asdict(reply) for reply in replies],
        }
        if self.folder is not None:
            append_rows(self.folder / REPLIES_FILE, [row])
        self._asked[step, ask] = answers
        self._forget_pending()

    def log_scoring(self, step: int, seconds: float) -> None:
        """Count the time that judging and scoring a step took, in this process."""
        self._extra_seconds[step] = seconds

    def usage(self) -> Usage:
        """Totals over all steps that were asked, and what the captions took."""
        replies = [reply for row in self._asked.values() for reply in row.replies]
        return Usage(
            steps=len({step for step, _ in self._asked}),
            proposals=len(replies),
            prompt_tokens=sum(reply.prompt_tokens for reply in replies),
            completion_tokens=sum(reply.completion_tokens for reply in replies),
            seconds=sum(row.seconds for row in self._asked.values()) + sum(self._extra_seconds.values()),
            captions=self._captions,
        )

    def _take_up(self, pending: Pending | None) -> None:
        """Go on with the step that was under way, in a file without a torn line; of a whole step nothing is left."""
        if pending is None or (pending.step, pending.ask) in self._asked or not pending.replies:
            self._forget_pending()
            return
        self._pending = pending
        if self.folder is not None:
            truncate_rows(self.folder / PENDING_FILE, 1 + len(pending.replies))

    def _forget_pending(self) -> None:
        self._pending = None
        if self.folder is not None:
            path = self.folder / PENDING_FILE
            with writing(path):
                path.unlink(missing_ok=True)


def _follows(place: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether a question, by its step and its place in it, may come after another."""
    (step, ask), (next_step, next_ask) = place, other
    return other == (step + 1, 0) or (next_step == step >= 1 and next_ask == ask + 1)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _damage(what: str, place: Path) -> RunError:
    return RunError(what, where=str(place), remedy="Restore the files of the run, or start a new run")
