"""How a prompt came to be: those that it descends from, and the words that each of them changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from ipo.prompt import CLASS_PLACEHOLDER, HistoryEntry

Change = Literal["same", "added", "left out"]
_WORD = re.compile(rf"\s*(?:{CLASS_PLACEHOLDER}|[\w'’-]+|[^\w\s])")
_MOST_WORDS = 300
"""Words of a text that are compared; a longer one is shown as wholly new."""


@dataclass(frozen=True)
class Generation:
    """One prompt of a lineage: its words, as they differ from those of the one before, and its other parents."""

    entry: HistoryEntry
    words: tuple[tuple[Change, str], ...]
    others: int = 0
    """How many further parents it has."""


def lineage(entries: Sequence[HistoryEntry], start: int) -> list[HistoryEntry]:
    """A candidate and those that it descends from by its nearest parent, the first of them first."""
    found, place = [entries[start]], entries[start].parent
    while place is not None:
        found.append(entries[place])
        place = entries[place].parent
    return found[::-1]


def generations(entries: Sequence[HistoryEntry], start: int) -> list[Generation]:
    """The lineage of a candidate, each with the words that it changed."""
    found = list[Generation]()
    for entry in lineage(entries, start):
        before = found[-1].entry.text if found else entry.text
        words = word_changes(before, entry.text)
        found.append(Generation(entry, tuple(words), len(entry.parents or (0,)) - 1))
    return found


def word_changes(before: str, after: str) -> list[tuple[Change, str]]:
    """One text as changes of another, word by word; what was left out stands before what came in its place.

    Each part begins with the space that stands before it.
    """
    old, new = _WORD.findall(before), _WORD.findall(after)
    if before == after or max(len(old), len(new)) > _MOST_WORDS:
        return [("same" if before == after else "added", after)]
    found = list[tuple[Change, str]]()
    for kind, start, end, new_start, new_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            found.append(("same", "".join(new[new_start:new_end])))
            continue
        if start < end:
            found.append(("left out", "".join(old[start:end])))
        if new_start < new_end:
            found.append(("added", "".join(new[new_start:new_end])))
    return found
