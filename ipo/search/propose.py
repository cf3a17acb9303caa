"""From replies to candidates: parse, check, and give every reject its reason. Nothing unparsed is ever a prompt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ipo.clip.lengths import TextRoom
from ipo.config import SearchSettings
from ipo.errors import PromptError
from ipo.llm.base import LLM, PHRASE_FORMS, LikelihoodModel, Reply
from ipo.llm.parse import read_prompt
from ipo.llm.phrases import content_key
from ipo.naming import named_classes
from ipo.prompt import CLASS_PLACEHOLDER, HistoryEntry, Prompt
from ipo.search.meta_prompt import build_messages
from ipo.search.words import odd_signs, unfit_words, unknown_words

RejectKind = Literal[
    "no reply", "cut off", "no prompt", "duplicate", "too long", "names a class", "unfit", "not English", "unlikely",
    "no score",
]  # fmt: skip
REJECT_WORDS: Mapping[str, str] = {
    "no reply": "nothing came back",
    "cut off": "it ran into the limit of tokens",
    "no prompt": "no sentence with one class slot",
    "duplicate": "proposed before",
    "too long": "longer than CLIP reads",
    "names a class": "it says which class it is",
    "unfit": "words that nobody wants read out",
    "not English": "words that no English list has",
    "unlikely": "the language model itself finds such a sentence improbable",
    "no score": "CLIP's figures for it are not finite",
}
"""What each kind of reject means, for people."""
MOST_CHARACTERS = 500
"""Longest proposal, as in the reference code."""
LIKELIHOOD_TEMPLATE = "continue.j2"
"""Without a history it is a short list of good prompts; a proposal is judged by how likely it is to come next there.

In that context the likelihood tells sensible prompts from the rest far better than at the start of a document.
"""
_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "`": "`", "«": "»"}
_PLACEHOLDER = re.compile(r"\[[^\[\]]*\]|\bCLASS(?:[ _]?NAME)?\b|%s|\$\w+")
"""What models write for a class slot beside the one that was asked for."""
_JOINED = re.compile(rf"[A-Za-z0-9]{CLASS_PLACEHOLDER}|{CLASS_PLACEHOLDER}[A-Za-z0-9]")
_POSSESSIVE = re.compile(r"^['’]s\b")
"""What may follow a class name directly."""
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True)
class Reject:
    """A reply that is no candidate: what it said, why it was turned down, and the details."""

    text: str
    kind: RejectKind
    detail: str = ""

    @property
    def reason(self) -> str:
        """The reason in words, as the history keeps it."""
        return f"{self.kind}: {self.detail}" if self.detail else self.kind


def reject_counts(rejects: Iterable[HistoryEntry]) -> dict[str, int]:
    """How many rejects there are of each kind."""
    return dict(Counter((entry.reason or "").partition(":")[0] for entry in rejects))


@dataclass(frozen=True)
class Checks:
    """What a parsed prompt must pass."""

    room: TextRoom
    """What a prompt must fit: the names of all classes that it will be tested with."""
    unnamed: tuple[str, ...] = ()
    """Classes that a prompt must not name."""
    english_only: bool = True
    min_likelihood: float | None = None
    likelihood: Callable[[Sequence[str]], list[float]] | None = None

    @classmethod
    def of(cls, settings: SearchSettings, room: TextRoom, classnames: Sequence[str], llm: LLM | None) -> Checks:
        """The checks that the settings ask for; the likelihood bound only where the LLM can tell a likelihood."""
        bound, likelihood = settings.min_likelihood, None
        if llm is not None and isinstance(llm, LikelihoodModel):
            bound = llm.min_likelihood if bound is None else bound
            (context,) = build_messages(LIKELIHOOD_TEMPLATE, [], [], "line")
            likelihood = partial(llm.mean_log_likelihood, context=context.content)
        return cls(
            room=room,
            unnamed=unnamed_classes(settings, classnames),
            english_only=settings.english_only,
            min_likelihood=bound,
            likelihood=likelihood,
        )


def unnamed_classes(settings: SearchSettings, classnames: Sequence[str]) -> tuple[str, ...]:
    """The classes that proposals must not name: those of the fit that no first prompt names.

    New classes must not be looked at: a search that passes over prompts with their names has seen them.
    """
    if settings.class_names_allowed:
        return ()
    named = named_by_first_prompts(settings, classnames)
    return tuple(name for name in classnames if name not in named)


def named_by_first_prompts(settings: SearchSettings, classnames: Sequence[str]) -> list[str]:
    """The classes that a first prompt names: a class `photo` does not forbid the word of "a photo of a"."""
    prompts = [Prompt(text) for text in settings.first_prompts]
    return list(dict.fromkeys(name for prompt in prompts for name in _named(prompt, classnames)))


def accept(replies: Sequence[Reply], seen: AbstractSet[str], checks: Checks) -> list[Prompt | Reject]:
    """One verdict a reply, in order: a new and fit prompt, or a reject. `seen` holds the keys of all earlier texts."""
    verdicts: list[Prompt | Reject] = []
    keys, said = set(seen), {content_key(text) for text in seen}
    for reply in replies:
        verdict = parse_reply(reply)
        if isinstance(verdict, Prompt):
            verdict = check(verdict, keys, checks)
        if isinstance(verdict, Prompt) and reply.form in PHRASE_FORMS and content_key(verdict.text) in said:
            verdict = Reject(verdict.text, "duplicate", "the words of an earlier one, but for order and function words")
        if isinstance(verdict, Prompt):
            keys.add(verdict.key())
            said.add(content_key(verdict.text))
        verdicts.append(verdict)
    return _likely(verdicts, checks)


def parse_reply(reply: Reply) -> Prompt | Reject:
    """The prompt that a reply holds in the form it was asked for, or why it holds none."""
    if reply.error is not None:
        return Reject(reply.text, "no reply", reply.error)
    if not reply.text.strip():
        return Reject(reply.text, "no reply", "empty")
    if reply.finish_reason != "stop":
        return Reject(reply.text, "cut off", reply.finish_reason)
    try:
        return _without_quotes(read_prompt(reply.text, reply.form))
    except PromptError as error:
        return Reject(reply.text, "no prompt", error.what)


def check(prompt: Prompt, seen: AbstractSet[str], checks: Checks) -> Prompt | Reject:
    """The prompt itself if it is new, in shape, fits CLIP's context with all class names, and is fit to be read."""
    if prompt.key() in seen:
        return Reject(prompt.text, "duplicate")
    if problem := _shape_problem(prompt):
        return Reject(prompt.text, "no prompt", problem)
    if len(prompt.text) > MOST_CHARACTERS:
        return Reject(prompt.text, "too long", f"{len(prompt.text)} characters, at most {MOST_CHARACTERS}")
    if unusable := start_problem(prompt, checks):
        return unusable
    if checks.english_only:
        words = f"{prompt.before} {_POSSESSIVE.sub('', prompt.after)}"
        if unfit := [*unfit_words(words), *odd_signs(words)]:
            return Reject(prompt.text, "unfit", ", ".join(unfit))
        if unknown := unknown_words(words):
            return Reject(prompt.text, "not English", ", ".join(unknown))
    return prompt


def start_problem(prompt: Prompt, checks: Checks) -> Reject | None:
    """What keeps even a prompt that people wrote from being scored: it does not fit CLIP, or it names a class."""
    if excess := checks.room.prompt_excess(prompt):
        return Reject(prompt.text, "too long", excess)
    if named := _named(prompt, checks.unnamed):
        return Reject(prompt.text, "names a class", ", ".join(named))
    return None


def _shape_problem(prompt: Prompt) -> str | None:
    """What keeps a text with one slot from being a sentence around a class name."""
    sides = f"{prompt.before} {prompt.after}"
    if not _LETTER.search(sides):
        return "no words around the class slot"
    if found := _PLACEHOLDER.search(sides):
        return f"another placeholder, {found.group()}"
    if _JOINED.search(prompt.text):
        return "letters joined to the class slot"
    return None


def _without_quotes(prompt: Prompt) -> Prompt:
    """The prompt without quotation marks around the whole of it."""
    text = prompt.text.strip()
    inside, last = text[1:-1], _QUOTES.get(text[0])
    return Prompt(inside.strip()) if last == text[-1] and not {text[0], last} & set(inside) else prompt


def _named(prompt: Prompt, classnames: Sequence[str]) -> list[str]:
    """The classes that either side of the slot names."""
    return list(
        dict.fromkeys(name for side in (prompt.before, prompt.after) for name in named_classes(side, classnames))
    )


def _likely(verdicts: list[Prompt | Reject], checks: Checks) -> list[Prompt | Reject]:
    """The verdicts with all prompts below the likelihood bound turned into rejects."""
    if checks.likelihood is None or checks.min_likelihood is None:
        return verdicts
    prompts = [verdict for verdict in verdicts if isinstance(verdict, Prompt)]
    if not prompts:
        return verdicts
    values = dict(zip(prompts, checks.likelihood([prompt.text for prompt in prompts]), strict=True))
    return [
        Reject(verdict.text, "unlikely", f"{values[verdict]:.2f} nats a token, the bound is {checks.min_likelihood}")
        # Not "below the bound": NaN, which some models give, is above it as little as below.
        if isinstance(verdict, Prompt) and not values[verdict] >= checks.min_likelihood
        else verdict
        for verdict in verdicts
    ]
