"""The text that the LLM is given: instruction, image descriptions, scored history, request (arXiv 2410.15397, 3)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ipo.llm.base import Message, ReplyForm
from ipo.prompt import HistoryEntry
from ipo.render import is_shipped, render


def build_messages(
    template: str, history: Sequence[HistoryEntry], captions: Sequence[str], form: ReplyForm
) -> list[Message]:
    """One user message, as in the paper. `history` is shown as given: scored entries, best last; either may be empty.

    `template` is a shipped one by its name (`ipo.j2`) or one's own by its path. It may use `history` (rows with `text`,
    `accuracy` in percent and `loss`, as texts), `next_accuracy` (a little above the best), `captions` and `form`. Where
    images have several labels `accuracy` is their mean average precision, and where they have none how clearly they
    fall into classes; `metric` is the word for it.
    """
    return one_message(
        template,
        history=history_rows(history),
        next_accuracy=next_accuracy(history),
        metric=_metric(history),
        captions=[single_line(caption) for caption in captions],
        form=form,
    )


def one_message(template: str, **values: Any) -> list[Message]:
    """One user message in the words of a template: a shipped one by its name, or one's own by its path."""
    return [Message("user", render(_own_file(template) or template, **values).strip())]


def history_rows(entries: Sequence[HistoryEntry]) -> list[dict[str, Any]]:
    """Scored entries as a template shows them: `text`, `accuracy` in percent and `loss`, as texts."""
    return [_row(entry) for entry in entries]


def _metric(history: Sequence[HistoryEntry]) -> str:
    metric = next((entry.score.metric for entry in history if entry.score), "accuracy")
    return "mean average precision" if metric == "map" else metric


def single_line(text: str) -> str:
    """A text of somebody else, such as a caption or a class name, with single spaces for all that is white."""
    return " ".join(text.split())


def _own_file(template: str) -> Path | None:
    """The path of somebody's own template; None for a shipped one, whose name goes first, and for none at all."""
    path = Path(template).expanduser()
    return path if template and path.exists() and not is_shipped(template) else None


def _row(entry: HistoryEntry) -> dict[str, Any]:
    assert entry.score is not None, "only scored entries are shown"
    return {"text": entry.text, "accuracy": f"{100 * entry.score.value:.1f}", "loss": f"{entry.score.loss:.3f}"}


def next_accuracy(history: Sequence[HistoryEntry]) -> str:
    """An accuracy in percent that is a little above the best of `history`, for a model that continues a pattern."""
    best = max((entry.score.value for entry in history if entry.score), default=0.0)
    return f"{min(100.0, 100 * best + 1):.1f}"
