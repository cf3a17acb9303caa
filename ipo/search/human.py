"""Sentences that a person adds to a search: they stand in the history, marked, and the search goes on with them."""

from __future__ import annotations

from ipo.errors import ConfigError
from ipo.llm.base import Reply
from ipo.prompt import AnyScore, HistoryEntry, Prompt
from ipo.search.history import History
from ipo.search.record import Record


def require_new(prompt: Prompt, history: History) -> None:
    """Raise `ConfigError` for a sentence that was proposed before."""
    known = history.keys()
    if prompt.key() in known:
        raise ConfigError("this sentence is in the history already", where=prompt.text, remedy="Write another one")


def add_sentence(record: Record, prompt: Prompt, score: AnyScore) -> HistoryEntry:
    """Put a sentence with its score behind the last whole step of a run, in the log of replies and in the history.

    It takes part in that step, so that the search has as many steps before it as without it. Raises `ConfigError` for
    one that is there already, and `RunError` where a step is under way.
    """
    require_new(prompt, record.history)
    step, ask = record.next_place()
    record.log_replies(step, ask, [], [Reply(prompt.text, "line", "stop")], 0.0)
    entry = HistoryEntry(len(record.history), step, prompt.text, score=score, by="human")
    record.history.append([entry])
    return entry
