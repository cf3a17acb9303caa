"""What the language model was asked and answered in each step, as far as a page has room."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ipo.prompt import HistoryEntry
from ipo.report.candidates import cut
from ipo.screen import printable
from ipo.search.record import REPLIES_FILE
from ipo.search.replies import Question
from ipo.store.files import parse_rows

_MOST_CHARACTERS = 700_000
_MOST_OF_A_TEXT = 20_000


@dataclass(frozen=True)
class Asked:
    """One question, and the candidates that came of its replies."""

    messages: tuple[tuple[str, str], ...]
    """Role and text of each."""
    entries: tuple[HistoryEntry, ...]
    seconds: float

    @property
    def size(self) -> int:
        """Characters that it takes."""
        return sum(len(text) for _, text in self.messages) + sum(80 + len(entry.text) for entry in self.entries)


@dataclass(frozen=True)
class Step:
    """One step of a search: its questions, and its best score in percent."""

    number: int
    asked: tuple[Asked, ...]
    best: float | None


@dataclass(frozen=True)
class Exchanges:
    """The steps that a page shows, and how many there are beside."""

    steps: tuple[Step, ...]
    left_out: int


def exchanges(folder: Path, entries: Sequence[HistoryEntry], first: Collection[int]) -> Exchanges:
    """The steps of a run with its `entries`, fit for a page; those named `first` are kept before others."""
    steps = read_steps(folder, entries)
    order = sorted(steps, key=lambda step: (step.number not in first, step.number))
    kept, room = set[int](), _MOST_CHARACTERS
    for step in order:
        room -= sum(one.size for one in step.asked)
        if room < 0:
            break
        kept.add(step.number)
    return Exchanges(tuple(step for step in steps if step.number in kept), len(steps) - len(kept))


def read_steps(folder: Path, entries: Sequence[HistoryEntry]) -> list[Step]:
    """The steps as the reply log has them, each reply with the candidate that came of it."""
    by_step: dict[int, list[HistoryEntry]] = {}
    for entry in entries:
        by_step.setdefault(entry.step, []).append(entry)
    asked: dict[int, list[Asked]] = {}
    for question in parse_rows(folder / REPLIES_FILE, Question.from_json):
        step, rest = question.answers.step, by_step.get(question.answers.step, [])
        own, by_step[step] = rest[: len(question.answers.replies)], rest[len(question.answers.replies) :]
        messages = tuple((message.role, _lines(message.content)) for message in question.messages)
        asked.setdefault(step, []).append(Asked(messages, tuple(own), question.answers.seconds))
    return [Step(number, tuple(of_step), _best(of_step)) for number, of_step in asked.items()]


def _lines(text: str) -> str:
    """A text of several lines, fit for a page."""
    return cut("\n".join(map(printable, text.split("\n"))), _MOST_OF_A_TEXT)


def _best(asked: Sequence[Asked]) -> float | None:
    return max((100 * entry.score.value for one in asked for entry in one.entries if entry.score), default=None)
