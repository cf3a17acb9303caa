"""What a comparison shows: its columns, the notes under it, and what each method says.

Accuracies are shown in percent; published rows carry a dagger.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ipo.comparison.names import ALL_CLASSES, AVERAGE, target_names
from ipo.comparison.paired import Difference
from ipo.comparison.rows import Mean, Row
from ipo.data.uses import legend, letters
from ipo.prompt import CLASS_PLACEHOLDER, METRIC_WORDS

DAGGER = "†"


@dataclass(frozen=True)
class Column:
    """A column: its heading, and what each row has there."""

    head: str
    cells: tuple[str, ...]
    is_label: bool = False
    """Whether it says what a line is about; it stands to the left then."""


def columns(rows: Sequence[Row]) -> list[Column]:
    """The columns with printed cells; those that would be empty in every row are left out."""
    own = _own_classes(rows)
    ends = target_names([spec for row in rows for spec in row.targets])
    accuracies: list[tuple[str, Callable[[Row], str]]] = [
        (own or metric_words(rows), lambda row: _mean(row.base)),
        ("new", lambda row: _mean(row.new)),
        ("H", lambda row: _percent(row.harmonic_mean)),
        *((ends[spec], _target(spec)) for spec in ends),
    ]
    differences = [(f"Δ {own}".rstrip(), _difference("base")), ("Δ new", _difference("new")), ("Δ H", _difference("H"))]
    differences += [(f"Δ {ends[spec]}", _difference(spec)) for spec in ends]
    spent: list[tuple[str, Callable[[Row], str]]] = [
        ("time, s", lambda row: "" if row.seconds is None else f"{row.seconds:,.0f}"),
        ("cost, $", lambda row: f"{row.cost:.4f}" if row.cost else ""),
    ]
    labels = [
        Column("dataset", tuple(_dataset(row) for row in rows), is_label=True),
        Column("method", tuple(row.method + (f" {DAGGER}" if row.source else "") for row in rows), is_label=True),
    ]
    seeds = Column("seeds", tuple(str(len(row.seeds)) if row.seeds else "" for row in rows))
    uses = Column("uses", tuple(_uses(rows)))
    made = [Column(head, tuple(cell(row) for row in rows)) for head, cell in (*accuracies, *differences, *spent)]
    return [*labels, *(column for column in (seeds, uses, *made) if any(column.cells))]


def _uses(rows: Sequence[Row]) -> list[str]:
    """What each measured row saw, in letters; nothing where none of them tells, as of runs of earlier versions."""
    told = any(row.uses is not None for row in rows)
    return [letters(row.uses) if told and not row.source else "" for row in rows]


def metric_words(rows: Sequence[Row]) -> str:
    """`accuracy`, `mAP`, or both: what the figures of the rows are."""
    return " or ".join(dict.fromkeys(METRIC_WORDS[row.metric] for row in sorted(rows, key=lambda row: row.metric)))


def _dataset(row: Row) -> str:
    return row.dataset if row.metric == "accuracy" else f"{row.dataset} ({METRIC_WORDS[row.metric]})"


def _own_classes(rows: Sequence[Row]) -> str:
    """What the classes of the fits are called in headings: nothing where they are all there are."""
    kinds = {row.classes for row in rows}
    return "" if kinds == {ALL_CLASSES} else "base or all" if ALL_CLASSES in kinds else "base"


def _target(spec: str) -> Callable[[Row], str]:
    return lambda row: _mean(row.targets.get(spec))


def _difference(name: str) -> Callable[[Row], str]:
    return lambda row: _shown_difference(row.differences.get(name))


def notes(rows: Sequence[Row], reference: str) -> list[str]:
    """What the columns mean, and where published rows are from."""
    lines = [_accuracy_note(rows)]
    if any(row.differences for row in rows):
        lines.append(_difference_note(rows, reference))
    if any(shown := _uses(rows)):
        lines.append(legend(filter(None, shown)))
    measured = [row for row in rows if not row.source and row.dataset != AVERAGE]
    others = [row for row in measured if row.method != reference]
    if any(not row.differences for row in others):
        labels = ", or images have several labels" if any(row.metric == "map" for row in others) else ""
        lines.append(f"No Δ where runs share no seed with the reference, or were tested on other images{labels}.")
    for row in others:
        if row.differences and row.paired != row.seeds:
            seeds = ", ".join(map(str, row.paired))
            lines.append(f"Δ of {row.method} on {row.dataset}: only over the seeds that {reference} has too ({seeds}).")
    ends = target_names([spec for row in rows for spec in row.targets])
    for row in measured:
        if row.partly:
            names = ", ".join(ends[spec] for spec in row.partly)
            lines.append(f"{row.method} on {row.dataset}: only some of its runs were tested on {names}.")
    for source in dict.fromkeys(row.source for row in rows if row.source):
        methods = ", ".join(dict.fromkeys(row.method for row in rows if row.source == source))
        lines.append(f"{DAGGER} published, not measured here: {methods}: {source}.")
    return lines


def _accuracy_note(rows: Sequence[Row]) -> str:
    several = any(len(row.seeds) > 1 for row in rows)
    mean = ", mean over seeds ± population standard deviation" if several else ""
    harmonic = ""
    if any(row.new for row in rows):
        harmonic = "; H is that of the two means" if several else "; H is the harmonic mean of base and new"
    precise = any(row.metric == "map" for row in rows)
    told = "; mAP is the mean average precision over the classes that test images have" if precise else ""
    return f"Test {metric_words(rows)} in percent{mean}{harmonic}{told}."


def _difference_note(rows: Sequence[Row], reference: str) -> str:
    """What Δ is, and what its two kinds of uncertainty are about."""
    spread = any(found.spread is not None for row in rows for found in row.differences.values())
    line = f"Δ: difference from {reference} on the same test images"
    line += ", ± its standard deviation over seeds (fits, and splits where seeds draw them)" if spread else ""
    line += ", and in brackets its 95% paired bootstrap interval, which is over test images with the fits as they are:"
    return f"{line} another {'set of seeds' if spread else 'seed'} may lie outside of it."


def sentences(rows: Sequence[Row], perplexity: Callable[[list[str]], list[float]] | None = None) -> list[str]:
    """What each method's first run says, a line each: its prompts, or the words nearest to its context.

    With `perplexity` (of texts), its geometric mean over the prompts.
    """
    lines = []
    for row in rows:
        if row.sentences:
            more = f" and {len(row.sentences) - 1} more" if len(row.sentences) > 1 else ""
            texts = [sentence.replace(CLASS_PLACEHOLDER, "thing") for sentence in row.sentences]
            fluency = f"; perplexity {_geometric_mean(perplexity(texts)):,.0f}" if perplexity else ""
            lines.append(f"{row.dataset}, {row.method}: {row.sentences[0]}{more}{fluency}")
    return lines


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _mean(value: Mean | None) -> str:
    if value is None or value[1] is None:
        return _percent(value[0] if value else None)
    return f"{100 * value[0]:.1f} ± {100 * value[1]:.1f}"


def _signed(share: float) -> str:
    """Points with a sign; what rounds to nothing is +0.0."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def _shown_difference(value: Difference | None) -> str:
    if value is None:
        return ""
    spread = "" if value.spread is None else f" ± {100 * value.spread:.1f}"
    return f"{_signed(value.value)}{spread} [{_signed(value.low)}, {_signed(value.high)}]"
