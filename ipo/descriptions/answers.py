"""The log of what a language model was asked about classes and answered: a line a question, as soon as it is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from ipo.llm.base import Reply, Usage
from ipo.llm.parse import read_texts
from ipo.prompt import text_key
from ipo.store.files import EXACT, append_rows, checked, parse_rows

ANSWERS_FILE = "answers.jsonl"


@dataclass(frozen=True)
class Answers:
    """The replies to one question about one class."""

    classname: str
    asked: str
    """All that the model was shown."""
    replies: tuple[Reply, ...]

    __pydantic_config__: ClassVar = EXACT

    def texts(self) -> list[str]:
        """The texts in the replies, each once."""
        found: dict[str, str] = {}
        for reply in self.replies:
            if reply.error is None:
                for text in read_texts(reply.text, reply.form, cut=reply.finish_reason != "stop"):
                    found.setdefault(text_key(text), text)
        return list(found.values())


class AnswerLog:
    """All answers so far. One to a question that was answered before takes the place of the earlier one."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / ANSWERS_FILE
        self._rows = parse_rows(self._path, _answers)

    def add(self, answers: Answers) -> None:
        """Append answers, and wait until the disk has them."""
        append_rows(self._path, [asdict(answers)])
        self._rows.append(answers)

    def answered(self) -> set[tuple[str, str]]:
        """The questions, with their classes, that were answered with some text."""
        return {(row.classname, row.asked) for row in self._rows if row.texts()}

    def texts(self, questions: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
        """The texts about each class, in the order of the questions, each once."""
        last = {(row.classname, row.asked): row for row in self._rows}
        found: dict[str, dict[str, str]] = {}
        for classname, asked in questions:
            own = found.setdefault(classname, {})
            for text in last[classname, asked].texts() if (classname, asked) in last else ():
                own.setdefault(text_key(text), text)
        return {classname: list(own.values()) for classname, own in found.items()}

    def usage(self) -> Usage:
        """What all the answers took, those included that others took the place of."""
        replies = [reply for row in self._rows for reply in row.replies]
        return Usage(
            steps=len(self._rows),
            proposals=len(replies),
            prompt_tokens=sum(reply.prompt_tokens for reply in replies),
            completion_tokens=sum(reply.completion_tokens for reply in replies),
            seconds=round(sum(reply.seconds for reply in replies), 1),
        )


_row = checked(Answers)


def _answers(row: dict[str, Any]) -> Answers:
    return _row(row)
