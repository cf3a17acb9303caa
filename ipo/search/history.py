"""The record of a search: every candidate, scored or rejected, in the order it came. Append-only on disk.

`history.jsonl` holds only what the seed determines, so equal runs give equal files; times live in `replies.jsonl`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from pathlib import Path
from typing import TypeGuard, get_args

from ipo.config import LabelFreeRule, SelectionRule
from ipo.errors import RunError
from ipo.prompt import AnyScore, HistoryEntry, Score, text_key
from ipo.store.files import append_rows, parse_rows, truncate_rows

FOR_ANY_METRIC: tuple[SelectionRule, ...] = ("accuracy", "loss")
"""The selection rules that images with several labels have, too; the others are about the one right class."""


LABEL_FREE: Sequence[LabelFreeRule] = get_args(LabelFreeRule)
"""The selection rules that look at no label."""


def is_label_free(rule: SelectionRule) -> TypeGuard[LabelFreeRule]:
    """Whether a selection rule looks at no label."""
    return rule in LABEL_FREE


def _of_one_label(score: AnyScore) -> Score:
    if not isinstance(score, Score):
        what, remedy = "this selection rule needs one label an image", f"Use --select {' or '.join(FOR_ANY_METRIC)}"
        raise RunError(what, remedy=remedy)
    return score


def _margin(score: AnyScore) -> tuple[float, float]:
    return _of_one_label(score).margin, -score.loss


def _fold_accuracy(score: AnyScore) -> tuple[float, float]:
    return (one := _of_one_label(score)).fold_accuracy, -one.fold_loss


def _fold_loss(score: AnyScore) -> tuple[float, float]:
    return -(one := _of_one_label(score)).fold_loss, one.fold_accuracy


RULES: dict[SelectionRule, Callable[[AnyScore], tuple[float, float]]] = {
    "accuracy": lambda score: (score.value, -score.loss),
    "loss": lambda score: (-score.loss, score.value),
    "margin": _margin,
    "fold_accuracy": _fold_accuracy,
    "fold_loss": _fold_loss,
    "carprt": lambda score: (score.value, -score.loss),
    "zpe": lambda score: (score.value, -score.loss),
}
"""What each selection rule prefers: the larger tuple is the better prompt. `accuracy` is the paper's; where images have
several labels it is by their mean average precision."""


class History:
    """The entries of a run. With a `path`, each step is on disk before the next one begins."""

    def __init__(self, rule: SelectionRule, path: Path | None = None) -> None:
        self.rule = RULES[rule]
        self.path = path
        self.entries: list[HistoryEntry] = []

    @classmethod
    def read(cls, rule: SelectionRule, path: Path) -> History:
        """The history on disk, as far as it was written."""
        history = cls(rule, path)
        history.entries = parse_rows(path, HistoryEntry.from_json)
        for index, entry in enumerate(history.entries):
            if entry.id != index:
                what, remedy = f"the entry with id {entry.id} stands in another place", "Restore the file"
                raise RunError(what, where=f"{path}:{index + 1}", remedy=remedy)
            for member in entry.members or ():
                other = history.entries[member]
                if other.score is None or other.members is not None:
                    what, remedy = f"the entry with id {member} is no scored prompt", "Restore the file"
                    raise RunError(f"a member of a set: {what}", where=f"{path}:{index + 1}", remedy=remedy)
        return history

    def empty(self) -> History:
        """A history in memory without entries, under the same rule."""
        other = copy(self)
        other.path, other.entries = None, []
        return other

    def __iter__(self) -> Iterator[HistoryEntry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def append(self, entries: Sequence[HistoryEntry]) -> None:
        """Add the entries of one step, on disk first."""
        if self.path is not None:
            append_rows(self.path, (entry.to_json() for entry in entries))
        self.entries.extend(entries)

    def keep_steps(self, last: int) -> None:
        """Forget all steps after `last`, on disk too."""
        self.entries = [entry for entry in self.entries if entry.step <= last]
        if self.path is not None:
            truncate_rows(self.path, len(self.entries))

    def keys(self) -> set[str]:
        """The normal forms of all texts so far, rejects included, against proposing one twice."""
        return {text_key(entry.text) for entry in self.entries}

    def ranked(self) -> list[HistoryEntry]:
        """The scored entries, best first; of equals the earlier one first."""
        return sorted(self.scored(), key=self.value, reverse=True)

    def scored(self) -> list[HistoryEntry]:
        """The entries with a score, in the order they came."""
        return [entry for entry in self.entries if entry.score is not None]

    def rejects(self) -> list[HistoryEntry]:
        """The entries without a score, each with its reason."""
        return [entry for entry in self.entries if entry.score is None]

    def texts(self, entry: HistoryEntry) -> list[str]:
        """The prompts of an entry: those of its members, or the one that it is."""
        return [self.entries[member].text for member in entry.members] if entry.members else [entry.text]

    def is_better(self, entry: HistoryEntry, other: HistoryEntry) -> bool:
        """Whether one scored entry is better than another; of equals neither is."""
        return self.value(entry) > self.value(other)

    def best(self) -> HistoryEntry:
        """The best entry so far. Raises `RunError` where nothing was scored."""
        ranked = self.ranked()
        if not ranked:
            raise RunError("no prompt of this run has a score", where=str(self.path or "history"))
        return ranked[0]

    def top(self, count: int, keep_first: bool = False) -> list[HistoryEntry]:
        """The best `count` entries, best last, as the meta-prompt shows them.

        With `keep_first` the first prompts are among them in any case.
        """
        return leading(self.ranked(), count, keep_first)[::-1]

    def value(self, entry: HistoryEntry) -> tuple[float, float]:
        """What the selection rule ranks a scored entry by: the larger tuple is the better prompt."""
        assert entry.score is not None
        return self.rule(entry.score)


def leading(ranked: Sequence[HistoryEntry], count: int, keep_first: bool) -> list[HistoryEntry]:
    """The first `count` of entries that are in order; with `keep_first` the first prompts are among them."""
    preferred = sorted(ranked, key=lambda entry: not (keep_first and entry.step == 0))
    chosen = {entry.id for entry in preferred[:count]}
    return [entry for entry in ranked if entry.id in chosen]
