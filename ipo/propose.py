"""From replies to candidates: parse, check, and give every reject its reason. Nothing unparsed is ever a prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Literal

from ipo.clip.base import ClipModel
from ipo.config import SearchSettings
from ipo.errors import PromptError
from ipo.llm.base import LLM, LikelihoodModel, Reply
from ipo.prompt import CLASS_PLACEHOLDER, Prompt
from ipo.words import unfit_words, unknown_words

RejectKind = Literal[
    "no reply", "cut off", "no prompt", "bad prompt", "too long", "duplicate", "not English", "unfit", "unlikely"
]
NEUTRAL_CLASS = "thing"
"""What stands for the class name where a prompt is judged as a sentence."""
_TAGGED = re.compile(r"<INS>(.*?)</INS>", re.DOTALL)


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


@dataclass(frozen=True)
class Checks:
    """What a parsed prompt must pass."""

    token_count: Callable[[str], int]
    """Tokens of a text for CLIP, start and end included, not truncated."""
    context_length: int
    longest_classname: str
    """The class name with the most tokens."""
    english_only: bool = True
    min_likelihood: float | None = None
    likelihood: Callable[[Sequence[str]], list[float]] | None = None

    @classmethod
    def of(cls, settings: SearchSettings, clip: ClipModel, classnames: Sequence[str], llm: LLM) -> Checks:
        """The checks that the settings ask for; the likelihood bound only where the LLM can tell a likelihood."""
        judge = llm if isinstance(llm, LikelihoodModel) else None
        bound = settings.min_likelihood
        if bound is None and judge is not None:
            bound = judge.min_likelihood
        return cls(
            token_count=clip.token_count,
            context_length=clip.context_length,
            longest_classname=max(classnames, key=clip.token_count),
            english_only=settings.english_only,
            min_likelihood=bound,
            likelihood=judge.mean_log_likelihood if judge is not None else None,
        )


def accept(replies: Sequence[Reply], seen: AbstractSet[str], checks: Checks) -> list[Prompt | Reject]:
    """One verdict a reply, in order: a new and fit prompt, or a reject. `seen` holds the keys of all earlier texts."""
    verdicts: list[Prompt | Reject] = []
    keys = set(seen)
    for reply in replies:
        verdict = parse_reply(reply)
        if isinstance(verdict, Prompt):
            verdict = check(verdict, keys, checks)
        if isinstance(verdict, Prompt):
            keys.add(verdict.key())
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
    parse = {"line": _parse_line, "sides": _parse_sides, "free": _parse_free}[reply.form]
    try:
        return parse(reply.text)
    except PromptError as error:
        return Reject(reply.text, "bad prompt", error.what)


def check(prompt: Prompt, seen: AbstractSet[str], checks: Checks) -> Prompt | Reject:
    """The prompt itself if it is new, fits CLIP's context with the longest class name, and is fit to be read."""
    if prompt.key() in seen:
        return Reject(prompt.text, "duplicate")
    tokens = checks.token_count(prompt.fill(checks.longest_classname))
    if tokens > checks.context_length:
        detail = f"{tokens} tokens with '{checks.longest_classname}', and CLIP reads {checks.context_length}"
        return Reject(prompt.text, "too long", detail)
    if checks.english_only:
        words = f"{prompt.before} {prompt.after}"
        if unfit := unfit_words(words):
            return Reject(prompt.text, "unfit", ", ".join(unfit))
        if unknown := unknown_words(words):
            return Reject(prompt.text, "not English", ", ".join(unknown))
    return prompt


def _likely(verdicts: list[Prompt | Reject], checks: Checks) -> list[Prompt | Reject]:
    """The verdicts with all prompts below the likelihood bound turned into rejects."""
    if checks.likelihood is None or checks.min_likelihood is None:
        return verdicts
    prompts = [verdict for verdict in verdicts if isinstance(verdict, Prompt)]
    values = dict(zip(prompts, checks.likelihood([p.fill(NEUTRAL_CLASS) for p in prompts]), strict=True))
    return [
        Reject(verdict.text, "unlikely", f"{values[verdict]:.2f} nats a token, the bound is {checks.min_likelihood}")
        if isinstance(verdict, Prompt) and values[verdict] < checks.min_likelihood
        else verdict
        for verdict in verdicts
    ]


def _parse_line(text: str) -> Prompt | Reject:
    return Prompt(" ".join(text.split()))


def _parse_free(text: str) -> Prompt | Reject:
    tagged = _TAGGED.findall(text)
    if len(tagged) != 1:
        return Reject(text, "no prompt", f"{len(tagged)} texts between <INS> and </INS>")
    return Prompt(" ".join(tagged[0].split()))


def _parse_sides(text: str) -> Prompt | Reject:
    sides = _find_object(text)
    if sides is None:
        return Reject(text, "no prompt", "no JSON object")
    before, after = sides.get("before"), sides.get("after")
    if not isinstance(before, str) or not isinstance(after, str):
        return Reject(text, "no prompt", "no texts `before` and `after`")
    before = before.strip().removesuffix(CLASS_PLACEHOLDER).strip()
    after = after.strip().removeprefix(CLASS_PLACEHOLDER).strip()
    if CLASS_PLACEHOLDER in before + after:
        return Reject(text, "bad prompt", "more than one class slot")
    if not re.search(r"[A-Za-z]", before + after):
        return Reject(text, "no prompt", "no words around the class slot")
    return Prompt.from_sides(_spaced(before, end=True), _spaced(after, end=False))


def _spaced(side: str, *, end: bool) -> str:
    """A side with a space between its words and the slot; punctuation and 's stay next to it."""
    if end:
        return f"{side} " if side and side[-1] not in "-(\"'" else side
    return f" {side}" if re.match(r"[\w(\"]", side) else side


def _find_object(text: str) -> dict[str, Any] | None:
    """The one JSON object in a text, whether bare, fenced or among other words; None if there is none or several."""
    found, position, decoder = [], text.find("{"), json.JSONDecoder()
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
        except ValueError:
            end = position + 1
        else:
            found.append(value)
        position = text.find("{", end)
    return found[0] if len(found) == 1 else None
