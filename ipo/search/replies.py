"""What came back to the questions of a search, as lines of its files: whole answers, and the one that is under way."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from ipo.llm.base import Message, Reply
from ipo.store.files import EXACT, checked, parse_rows

_SET = re.compile(r"[0-9]{1,9}( [0-9]{1,9})*")
"""The ids of the members of a set of prompts."""


@dataclass(frozen=True)
class Answers:
    """What came back to one question of a step, and how long it took in seconds."""

    step: int
    replies: tuple[Reply, ...]
    seconds: float
    ask: int = 0
    """Place of the question in its step; the log of earlier versions has one a step."""

    __pydantic_config__: ClassVar = EXACT

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Answers:
        """One line of the reply log. Raises `ValueError` for another shape."""
        answers = _answers({name: value for name, value in row.items() if name not in ("time", "messages")})
        if any(reply.error is not None and reply.text for reply in answers.replies):
            raise ValueError("a reply has both a text and an error")
        if any(reply.form == "set" and not _SET.fullmatch(reply.text) for reply in answers.replies):
            raise ValueError("a set of prompts is named by other than ids")
        return answers


@dataclass(frozen=True)
class Question:
    """A question of a step as the log has it: what was asked, and the answers."""

    messages: tuple[Message, ...]
    answers: Answers

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Question:
        """One line of the reply log. Raises `ValueError` or `KeyError` for another shape."""
        return cls(_messages(row["messages"]), Answers.from_json(row))


@dataclass
class Pending:
    """The question that is under way: what was asked, the replies so far by place, and the seconds until the last."""

    step: int
    ask: int
    messages: list[dict[str, Any]]
    replies: dict[int, Reply] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def read(cls, path: Path) -> Pending | None:
        """What a killed run left, if anything. Raises `RunError` where it is damaged."""
        pending = cls(0, 0, [])
        parse_rows(path, pending._add)
        return pending if pending.step else None

    def _add(self, row: dict[str, Any]) -> None:
        """Take in one line. Raises `ValueError` or `KeyError` for one that does not belong here."""
        if not self.step:
            asked = _asked({"step": row["step"], "ask": row.get("ask", 0), "messages": row["messages"]})
            self.step, self.ask, self.messages = asked.step, asked.ask, list(asked.messages)
            return
        kept = _kept(row)
        if kept.index in self.replies:
            raise ValueError(f"a second reply {kept.index}")
        self.replies[kept.index], self.seconds = kept.reply, kept.seconds


@dataclass(frozen=True)
class Asked:
    """The question of the step that is under way, as its file begins with it."""

    step: Annotated[int, Field(ge=1)]
    ask: Annotated[int, Field(ge=0)]
    messages: list[dict[str, str]]

    __pydantic_config__: ClassVar = EXACT


@dataclass(frozen=True)
class Kept:
    """One reply of the step that is under way; `index` is its place, `seconds` when it came after asking."""

    index: Annotated[int, Field(ge=0)]
    seconds: float
    reply: Reply

    __pydantic_config__: ClassVar = EXACT


_answers, _asked, _kept = checked(Answers), checked(Asked), checked(Kept)
_messages = checked(tuple[Message, ...])
