"""Every candidate of a search for the report's table: compact rows for the page's script, and some for the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ipo.prompt import HistoryEntry
from ipo.search.history import History

IN_PAGE = 25
"""Scored candidates, and rejected ones, that are rows of the page itself, for readers without scripts."""
_MOST_CHARACTERS = 2_500_000
"""Characters of all texts in one page; where there are more, long ones are cut."""
_LEAST = 160


@dataclass(frozen=True)
class Candidates:
    """What the table of a page holds."""

    scored: tuple[HistoryEntry, ...]
    """The best ones, best first."""
    rejected: tuple[HistoryEntry, ...]
    scored_count: int
    rejected_count: int
    kinds: tuple[tuple[str, int], ...]
    """How many rejects there are of each kind, the most frequent first."""
    rows: Markup
    """JSON for a script element: `candidate_row` of each entry."""


def candidates(history: History, counts: dict[str, int]) -> Candidates:
    """The candidates of a history, whose texts are fit for a page; `counts` are the rejects by kind."""
    scored, rejected, most = history.ranked(), history.rejects(), most_of(history.entries)
    return Candidates(
        tuple(scored[:IN_PAGE]),
        tuple(rejected[:IN_PAGE]),
        len(scored),
        len(rejected),
        tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        json_block([candidate_row(entry, most) for entry in history]),
    )


def most_of(entries: Sequence[HistoryEntry]) -> int:
    """How many characters of each text a page has room for."""
    lengths = [len(entry.text) + len(entry.reason or "") for entry in entries]
    if sum(lengths) <= _MOST_CHARACTERS:
        return max(lengths, default=0)
    return max(_LEAST, _MOST_CHARACTERS // (2 * len(lengths)))


def candidate_row(entry: HistoryEntry, most: int) -> list[Any]:
    """`[step, accuracy or another metric in percent, loss, text, reason, by]`; no score is null, no reason is empty."""
    score = entry.score
    figures = [round(100 * score.value, 2), round(score.loss, 4)] if score else [None, None]
    return [entry.step, *figures, cut(entry.text, most), cut(entry.reason or "", most), entry.by or ""]


def cut(text: str, most: int) -> str:
    """The text, or the beginning of it and how much more there is."""
    return text if len(text) <= most else f"{text[:most]} … ({len(text) - most:,} characters more)"


def json_block(value: Any) -> Markup:
    """A value as JSON that may stand in a script element of a page: nothing in it can end the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # every character that HTML could take for its own is escaped
