"""From replies to candidates: parse, check, and give every reject its reason. Nothing unparsed is ever a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Literal

from ipo.clip.base import ClipModel
from ipo.config import SearchSettings
from ipo.errors import PromptError
from ipo.llm.base import LLM, LikelihoodModel, Reply
from ipo.llm.parse import read_prompt
from ipo.meta_prompt import build_messages
from ipo.prompt import Prompt
from ipo.words import unfit_words, unknown_words

RejectKind = Literal["no reply", "cut off", "no prompt", "duplicate", "too long", "unfit", "not English", "unlikely"]
LIKELIHOOD_TEMPLATE = "continue.j2"
"""Without a history it is a short list of good prompts; a proposal is judged by how likely it is to come next there.

In that context the likelihood tells sensible prompts from the rest far better than at the start of a document.
"""


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
        bound, likelihood = settings.min_likelihood, None
        if isinstance(llm, LikelihoodModel):
            bound = llm.min_likelihood if bound is None else bound
            (context,) = build_messages(LIKELIHOOD_TEMPLATE, [], [], "line")
            likelihood = partial(llm.mean_log_likelihood, context=context.content)
        return cls(
            token_count=clip.token_count,
            context_length=clip.context_length,
            longest_classname=max(classnames, key=clip.token_count),
            english_only=settings.english_only,
            min_likelihood=bound,
            likelihood=likelihood,
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
    try:
        return read_prompt(reply.text, reply.form)
    except PromptError as error:
        return Reject(reply.text, "no prompt", error.what)


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
    values = dict(zip(prompts, checks.likelihood([prompt.text for prompt in prompts]), strict=True))
    return [
        Reject(verdict.text, "unlikely", f"{values[verdict]:.2f} nats a token, the bound is {checks.min_likelihood}")
        if isinstance(verdict, Prompt) and values[verdict] < checks.min_likelihood
        else verdict
        for verdict in verdicts
    ]
