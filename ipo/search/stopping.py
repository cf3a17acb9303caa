"""When a search is over, by its limits, and what it took and wasted until then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ipo.config import SearchSettings
from ipo.llm.base import Usage
from ipo.llm.prices import cost
from ipo.prompt import HistoryEntry
from ipo.screen import counted
from ipo.search.history import History
from ipo.search.record import Record
from ipo.store.stop import stop_is_asked

_EXAMPLES = 3
_EXCERPT = 300


def stop_reason(limits: SearchSettings, record: Record, llm: str) -> str | None:
    """Why the run is over, or None. Limits are checked between steps; `llm` is the name of the model that is paid."""
    usage = record.usage()
    history, done = record.history, record.last_step
    spent = total_cost(llm, usage)
    if done >= limits.steps:
        return "the one step done" if limits.steps == 1 else f"all {limits.steps} steps done"
    if record.folder is not None and stop_is_asked(record.folder):
        return "a stop was asked for"
    if limits.patience and done - history.best().step >= limits.patience:
        return f"no better prompt in {counted(limits.patience, 'step')}"
    if limits.give_up and useless_steps(history) >= limits.give_up:
        kinds = reject_kinds([entry for entry in history.rejects() if entry.step > done - limits.give_up])
        reasons = ", ".join(f"{kind}: {len(entries)}" for kind, entries in kinds.items())
        last = "step" if limits.give_up == 1 else f"{limits.give_up} steps"
        return f"no proposal of the last {last} could be used ({reasons})"
    if limits.max_proposals and usage.proposals >= limits.max_proposals:
        return f"{counted(usage.proposals, 'proposal')} made"
    if limits.max_scored and len(scored := history.scored()) >= limits.max_scored:
        return f"{counted(len(scored), 'prompt')} scored"
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
