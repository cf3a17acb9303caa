"""The loop: show the best prompts so far, ask for new ones, score them, remember them (IPO, arXiv 2410.15397, 3).

history -> meta-prompt -> LLM -> replies -> candidates -> CLIP scores -> history
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ipo.clip.base import ClipModel
from ipo.config import LLMSettings, SearchSettings
from ipo.evaluate import NOT_FINITE, ImageSet, score_candidates, score_prompts
from ipo.history import History
from ipo.lengths import TextRoom
from ipo.llm.base import LLM, PHRASE_FORMS, RemoteLLM, Reply, Usage
from ipo.llm.prices import cost
from ipo.meta_prompt import build_messages
from ipo.prompt import HistoryEntry, Prompt
from ipo.propose import Checks, Reject, accept, unnamed_classes
from ipo.record import Record
from ipo.screen import counted

_EXAMPLES = 3
_EXCERPT = 300


@dataclass(frozen=True)
class Search:
    """All that the loop works with. It sees the training shots only."""

    settings: SearchSettings
    sampling: LLMSettings
    clip: ClipModel
    llm: LLM
    images: ImageSet
    classnames: tuple[str, ...]
    room: TextRoom
    """What prompts must fit."""
    captions: tuple[str, ...]
    seed: int


def optimize(
    search: Search,
    record: Record,
    watch: Callable[[Record], None] = lambda _: None,
    trying: Callable[[Sequence[str]], None] = lambda _: None,
) -> str:
    """Run, or go on with, a search until something stops it; the reason is returned.

    `watch` is called after every step, `trying` with the prompts that are about to be scored.
    """
    if record.last_step < 0:
        record.history.append(_first_entries(search))
    watch(record)
    while (reason := stop_reason(search, record)) is None:
        step = record.last_step + 1
        shown = record.history.top(search.settings.history, search.settings.keep_first)
        replies = record.replies(step)
        if replies is None:
            replies = _ask(search, record, step, shown)
        started = time.monotonic()
        record.history.append(_judge(search, record.history, shown, replies, trying))
        record.log_scoring(step, time.monotonic() - started)
        watch(record)
    return reason


def step_seed(seed: int, step: int) -> int:
    """The seed of one step, from the seed of the run; the same whether or not earlier steps ran in this process."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{step}".encode()).digest()[:4], "big")


def stop_reason(search: Search, record: Record) -> str | None:
    """Why the run is over, or None. Limits are checked between steps."""
    limits, usage = search.settings, record.usage()
    history, done = record.history, record.last_step
    spent = total_cost(search.llm.name, usage)
    if done >= limits.steps:
        return "the one step done" if limits.steps == 1 else f"all {limits.steps} steps done"
    if limits.patience and done - history.best().step >= limits.patience:
        return f"no better prompt in {counted(limits.patience, 'step')}"
    if limits.give_up and useless_steps(history) >= limits.give_up:
        kinds = reject_kinds([entry for entry in history.rejects() if entry.step > done - limits.give_up])
        reasons = ", ".join(f"{kind}: {len(entries)}" for kind, entries in kinds.items())
        last = "step" if limits.give_up == 1 else f"{limits.give_up} steps"
        return f"no proposal of the last {last} could be used ({reasons})"
    if limits.max_proposals and usage.proposals >= limits.max_proposals:
        return f"{counted(usage.proposals, 'proposal')} made"
    if limits.max_tokens and usage.tokens >= limits.max_tokens:
        return f"{counted(usage.tokens, 'token')} used"
    if limits.max_cost and spent is not None and spent >= limits.max_cost:
        return f"${spent:.4f} spent"
    if limits.max_minutes and usage.seconds >= 60 * limits.max_minutes:
        return f"{usage.seconds / 60:.1f} minutes used"
    return None


def useless_steps(history: History) -> int:
    """How many steps in a row, up to the last, brought no prompt that was scored."""
    useful = max((entry.step for entry in history.scored()), default=0)
    return max((entry.step for entry in history), default=0) - useful


def reject_kinds(rejects: Sequence[HistoryEntry]) -> dict[str, list[HistoryEntry]]:
    """The rejects by the kind of their reason, the most frequent kind first."""
    kinds: dict[str, list[HistoryEntry]] = {}
    for entry in rejects:
        kinds.setdefault((entry.reason or "").partition(":")[0], []).append(entry)
    return dict(sorted(kinds.items(), key=lambda item: -len(item[1])))


def unusable(history: History, give_up: int) -> dict[str, Any] | None:
    """What the LLM said in the last steps, where that was of no use at all or for so long that the search gave up."""
    useless = useless_steps(history)
    last = max((entry.step for entry in history), default=0)
    if not useless or (useless < last and not 0 < give_up <= useless):
        return None
    rejects = [entry for entry in history.rejects() if entry.step > last - useless]
    latest = [entries[-1] for entries in reject_kinds(rejects).values()]
    return {
        "steps": useless,
        "of": last,
        "gave_up": 0 < give_up <= useless,
        "replies": [{"reason": entry.reason, "text": entry.text[:_EXCERPT]} for entry in latest[:_EXAMPLES]],
    }


def total_cost(llm: str, usage: Usage) -> float | None:
    """US dollars for all tokens of a run, by the name of its LLM; None where the table lacks a price."""
    search = cost(llm, usage.prompt_tokens, usage.completion_tokens)
    if not usage.captions.tokens:
        return search
    captions = cost(usage.captions.model, usage.captions.prompt_tokens, usage.captions.completion_tokens)
    if search is None and not llm.startswith("openai:"):
        search = 0.0  # a model on this machine
    return None if search is None or captions is None else search + captions


def _first_entries(search: Search) -> list[HistoryEntry]:
    """One entry a first prompt: scored, or rejected if an earlier one is nearly identical."""
    prompts = [Prompt(text) for text in search.settings.first_prompts]
    places: dict[str, int] = {}
    for index, prompt in enumerate(prompts):
        places.setdefault(prompt.key(), index)
    distinct = [prompts[index] for index in places.values()]
    scores = iter(score_prompts(search.clip, distinct, search.images, search.classnames))
    return [
        HistoryEntry(index, 0, prompt.text, score=next(scores))
        if places[prompt.key()] == index
        else HistoryEntry(index, 0, prompt.text, reason="duplicate")
        for index, prompt in enumerate(prompts)
    ]


def _ask(search: Search, record: Record, step: int, shown: Sequence[HistoryEntry]) -> list[Reply]:
    messages = build_messages(search.settings.template or search.llm.template, shown, search.captions, search.llm.form)
    started = time.monotonic()
    terms: dict[str, Any] = {
        "n": search.settings.candidates,
        "temperature": search.sampling.temperature,
        "max_tokens": search.sampling.max_tokens,
        "seed": step_seed(search.seed, step),
    }
    if search.llm.form in PHRASE_FORMS:
        terms["unnamed"] = unnamed_classes(search.settings, search.classnames)
    if isinstance(search.llm, RemoteLLM):
        came = dict(record.begin(step, messages))
        for index, reply in search.llm.arriving(messages, **terms, have=dict(came)):
            record.keep(index, reply, time.monotonic() - started)
            came[index] = reply
        replies = [came[index] for index in range(search.settings.candidates)]
    else:
        replies = search.llm.generate(messages, **terms, known=record.history.keys())
    record.log_replies(step, messages, replies, time.monotonic() - started)
    return replies


def _judge(
    search: Search,
    history: History,
    shown: Sequence[HistoryEntry],
    replies: Sequence[Reply],
    trying: Callable[[Sequence[str]], None],
) -> list[HistoryEntry]:
    """One history entry a reply: scored if it holds a prompt that is fit and new, else rejected with the reason."""
    checks = Checks.of(search.settings, search.room, search.classnames, search.llm)
    verdicts = accept(replies, history.keys(), checks)
    prompts = [verdict for verdict in verdicts if isinstance(verdict, Prompt)]
    trying([prompt.text for prompt in prompts])
    scores = iter(score_candidates(search.clip, prompts, search.images, search.classnames))
    step = max((entry.step for entry in history), default=-1) + 1
    parent = shown[-1].id if shown else None
    entries = []
    for index, verdict in enumerate(verdicts, start=len(history)):
        score = next(scores) if isinstance(verdict, Prompt) else None
        if isinstance(verdict, Prompt) and score is None:
            verdict = Reject(verdict.text, "no score", NOT_FINITE)
        reason = verdict.reason if isinstance(verdict, Reject) else None
        entries.append(HistoryEntry(index, step, verdict.text, parent, score, reason))
    return entries
