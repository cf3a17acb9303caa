"""A language model is asked about each class once; the answers lie in a folder, and become `descriptions.json`.

A folder explains itself: `describe.json` says what was asked of whom and what it took, `answers.jsonl` holds each
answer as it came, `descriptions.json` the texts. A process that was ended goes on where it stopped, to the same file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ipo import __version__
from ipo.descriptions.answers import ANSWERS_FILE, AnswerLog, Answers
from ipo.descriptions.file import write_descriptions
from ipo.descriptions.kinds import Kind
from ipo.errors import LLMError, RunError
from ipo.llm.base import LLM, Message, RemoteLLM
from ipo.llm.prices import cost
from ipo.progress import track
from ipo.screen import counted
from ipo.seeds import fit_seed
from ipo.store.disk import writing
from ipo.store.files import checked, read_json, write_json

DESCRIPTIONS_FILE, FACTS_FILE, LOCK_FILE = "descriptions.json", "describe.json", ".lock"

Question = tuple[str, str]
"""A class name, and what the model is shown about it."""


@dataclass(frozen=True)
class Describing:
    """All that is asked: of whom, about what, and how."""

    name: str
    """Of the kind."""
    kind: Kind
    llm: LLM
    classnames: tuple[str, ...]
    seed: int
    concurrency: int = 1
    """Requests to a server under way at once."""

    @cached_property
    def questions(self) -> list[Question]:
        """Every question about every class, class after class."""
        chat = self.llm.template != "continue.j2"
        return [(name, asked) for name in self.classnames for asked in self.kind.asked(name, chat=chat)]

    def facts(self) -> dict[str, Any]:
        """What the answers depend on but the classes, of which there may be more later."""
        wording = json.dumps(self.kind.asked("thing", chat=self.llm.template != "continue.j2"))
        how = {key: getattr(self.kind, key) for key in ("temperature", "max_tokens", "samples")}
        digest = hashlib.sha256(wording.encode()).hexdigest()[:16]
        model = self.llm.name.partition(" at http")[0]  # a server may have another address now
        return {"kind": self.name, "llm": model, **how, "seed": self.seed, "questions": digest}

    def ask(self, question: Question) -> Answers:
        """The replies to a question; its seed is its own, whatever was asked before."""
        name, asked = question
        replies = self.llm.generate(
            [Message("user", asked)],
            self.kind.samples,
            self.kind.temperature,
            self.kind.max_tokens,
            fit_seed(self.seed, "describe", name, asked),
        )
        return Answers(name, asked, tuple(replies))


@dataclass(frozen=True)
class Described:
    """What came of it."""

    file: Path
    texts: dict[str, list[str]]
    facts: dict[str, Any]

    @property
    def without(self) -> list[str]:
        """Classes that there is no text about."""
        return [name for name, own in self.texts.items() if not own]


def estimate(job: Describing, folder: Path) -> str:
    """What is still to be asked, and what it takes at most, in a sentence."""
    left = _left(job, AnswerLog(folder))
    asked = sum(job.llm.token_count(asked) for _, asked in left)
    asked *= job.kind.samples if isinstance(job.llm, RemoteLLM) else 1
    most = len(left) * job.kind.samples * job.kind.max_tokens
    price = cost(job.llm.name, asked, most)
    paid = f", ${price:.2f} at most" if price else ""
    done = f"{counted(len(job.questions) - len(left), 'question')} answered, " if len(left) < len(job.questions) else ""
    tokens = f"about {asked:,} tokens, and up to {most:,} of answers{paid}"
    return f"{done}{counted(len(left), 'question')} to ask about {counted(len(job.classnames), 'class')}: {tokens}"


def describe(job: Describing, folder: Path) -> Described:
    """Ask what is not answered yet, and write the texts.

    Raises `RunError` for a folder of other descriptions or one that another process works on, and `LLMError` where
    there is no reply, or no text in any.
    """
    with _locked(folder):
        _require_same(job, folder)
        log = AnswerLog(folder)
        left = _left(job, log)
        for answers in track(_answered(job, left), "descriptions", len(left)):
            log.add(answers)
        texts, usage = log.texts(job.questions), log.usage()
        price = cost(job.llm.name, usage.prompt_tokens, usage.completion_tokens)
        paid = price if isinstance(job.llm, RemoteLLM) else 0.0
        facts = {**job.facts(), "ipo": __version__, "classes": len(texts), "usage": asdict(usage), "cost": paid}
        write_json(folder / FACTS_FILE, facts)
        if not any(texts.values()):
            raise LLMError(
                "no answer holds a text of the form that was asked for",
                where=str(folder / ANSWERS_FILE),
                remedy="Look at the answers; ask another model",
            )
        write_descriptions(folder / DESCRIPTIONS_FILE, texts)
    return Described(folder / DESCRIPTIONS_FILE, texts, facts)


def _left(job: Describing, log: AnswerLog) -> list[Question]:
    answered = log.answered()
    return [question for question in job.questions if question not in answered]


def _answered(job: Describing, questions: Sequence[Question]) -> Iterator[Answers]:
    """Answers as they come. The first question goes out alone: a server's faults are then found out once."""
    first, rest = questions[:1], questions[1:]
    yield from map(job.ask, first)
    if isinstance(job.llm, RemoteLLM) and job.kind.samples == 1:
        from ipo.llm.server.client import as_they_come

        yield from as_they_come(job.ask, rest, job.concurrency)
    else:
        yield from map(job.ask, rest)


def _require_same(job: Describing, folder: Path) -> None:
    """Note in a new folder what is asked; raise `RunError` where an old one holds answers to anything else."""
    place, facts = folder / FACTS_FILE, job.facts()
    try:
        before = read_json(place, checked(dict[str, Any]))
    except FileNotFoundError:
        others = sorted(path.name for path in folder.iterdir() if path.name != LOCK_FILE)
        if others:
            what = f"the folder holds other things: {', '.join(others[:3])}"
            raise RunError(what, where=str(folder), remedy="Give another --out") from None
        write_json(place, facts)
        return
    changed = [f"{key} was {before.get(key)}, is {value}" for key, value in facts.items() if before.get(key) != value]
    if changed:
        what = f"other descriptions were begun here: {'; '.join(changed)}"
        raise RunError(what, where=str(folder), remedy="Give another --out, or ask as before")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Inside, the folder, made where it is not there, is this process's alone."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        what = "another process writes descriptions here"
        raise RunError(what, where=str(folder), remedy="Wait for it, or end it") from None
    except (OSError, RuntimeError) as error:  # the latter where a file system knows no locks
        raise RunError(f"cannot write here: {error}", where=str(folder), remedy="Give another --out") from error
    try:
        yield
    finally:
        lock.release()
