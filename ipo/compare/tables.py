"""A comparison as text, Markdown, CSV or LaTeX. Accuracies are printed in percent; published rows carry a dagger."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from ipo.compare.rows import AVERAGE, Difference, Mean, Row
from ipo.prompt import CLASS_PLACEHOLDER

DAGGER = "†"

LATEX = {"\\": r"\textbackslash ", "±": r"$\pm$", "Δ": r"$\Delta$", DAGGER: r"$^\dagger$", "<": "$<$", ">": "$>$"}
"""Characters with a command of their own; see `_escape` for those that take a backslash."""

_METHOD_WIDTH = 32
"""Longer names of methods are written in several lines."""


def as_text(rows: Sequence[Row], reference: str) -> str:
    """A table for the terminal, with a line between datasets; as wide as its figures need."""
    table = Table(show_edge=False, pad_edge=False)
    heads, printed = cells(rows)
    for index, head in enumerate(heads):
        width = max(len(line[index]) for line in (heads, *printed))
        table.add_column(
            head,
            justify="left" if index < 2 else "right",
            width=min(width, _METHOD_WIDTH) if index == 1 else width,
            no_wrap=index != 1,
            overflow="fold",
        )
    for index, line in enumerate(printed):
        ends = index + 1 < len(rows) and rows[index + 1].dataset != rows[index].dataset
        table.add_row(*line, end_section=ends)
    file = io.StringIO()
    needed = sum(column.width or 0 for column in table.columns) + 3 * len(heads)
    Console(file=file, width=needed, markup=False, highlight=False).print(table)
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    return "\n".join([*lines, "", *notes(rows, reference)])


def as_markdown(rows: Sequence[Row], reference: str) -> str:
    """A table for a README or an issue."""
    heads, lines = cells(rows)
    marks = ["---", "---", *["---:"] * (len(heads) - 2)]
    table = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in (heads, marks, *lines)]
    return "\n".join([*table, "", *notes(rows, reference)])


def as_latex(rows: Sequence[Row], reference: str) -> str:
    """A `tabular` for the booktabs package."""
    heads, lines = cells(rows)
    body = []
    for index, line in enumerate(lines):
        if index and rows[index].dataset != rows[index - 1].dataset:
            body.append(r"\midrule")
        body.append(" & ".join(_escape(cell) for cell in line) + r" \\")
    start = rf"\begin{{tabular}}{{ll{'r' * (len(heads) - 2)}}}"
    top = [start, r"\toprule", " & ".join(_escape(head) for head in heads) + r" \\", r"\midrule"]
    comments = [f"% {line}" for line in notes(rows, reference)]
    return "\n".join([*comments, *top, *body, r"\bottomrule", r"\end{tabular}"])


def as_csv(rows: Sequence[Row]) -> str:
    """All figures as fractions, unrounded, a column each."""
    targets = list(dict.fromkeys(spec for row in rows for spec in row.targets))
    heads = ["dataset", "method", "source", "seeds", "base", "base_std", "new", "new_std", "H"]
    for name in ("base", "new", "H", *targets):
        heads += [f"difference_{name}", f"difference_{name}_low", f"difference_{name}_high"]
    heads += [column for spec in targets for column in (spec, f"{spec}_std")]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*heads, "seconds", "cost", "sentences"])
    for row in rows:
        values: list[object] = [row.dataset, row.method, row.source or "measured", " ".join(map(str, row.seeds))]
        values += [*row.base, *(row.new or (None, None)), row.harmonic_mean]
        for name in ("base", "new", "H", *targets):
            found = row.differences.get(name)
            values += [found.value, found.low, found.high] if found else [None] * 3
        values += [value for spec in targets for value in row.targets.get(spec, (None, None))]
        writer.writerow([*values, row.seconds, row.cost, " | ".join(row.sentences)])
    return file.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Sequence[Row], str], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "latex": as_latex,
    "csv": lambda rows, _: as_csv(rows),
}


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings and printed cells. Columns that would be empty in every row are left out."""
    targets = list(dict.fromkeys(spec for row in rows for spec in row.targets))
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("dataset", lambda row: row.dataset),
        ("method", lambda row: row.method + (f" {DAGGER}" if row.source else "")),
        ("seeds", lambda row: str(len(row.seeds)) if row.seeds else ""),
        ("base" if any(row.new for row in rows) else "accuracy", lambda row: _mean(row.base)),
        ("new", lambda row: _mean(row.new)),
        ("H", lambda row: _percent(row.harmonic_mean)),
        *((spec, lambda row, spec=spec: _mean(row.targets.get(spec))) for spec in targets),
        *(
            (f"Δ {name}", lambda row, name=name: _difference(row.differences.get(name)))
            for name in ("base", "new", "H", *targets)
        ),
        ("time, s", lambda row: "" if row.seconds is None else f"{row.seconds:,.0f}"),
        ("cost, $", lambda row: "" if row.cost is None else f"{row.cost:.4f}"),
    ]
    kept = [(head, cell) for head, cell in columns if any(cell(row) for row in rows)]
    return [head for head, _ in kept], [[cell(row) for _, cell in kept] for row in rows]


def notes(rows: Sequence[Row], reference: str) -> list[str]:
    """What the columns mean, and where published rows are from."""
    lines = ["Test accuracy in percent, mean over seeds ± population standard deviation; H is that of the two means."]
    if any(row.differences for row in rows):
        lines.append(f"Δ: difference from {reference} on the same test images, with a 95% paired bootstrap interval.")
    measured = [row for row in rows if not row.source and row.dataset != AVERAGE and row.method != reference]
    if any(not row.differences for row in measured):
        lines.append("No Δ where runs share no seed with the reference, or were tested on other images.")
    for row in measured:
        if row.differences and row.paired != row.seeds:
            seeds = ", ".join(map(str, row.paired))
            lines.append(f"Δ of {row.method} on {row.dataset}: only over the seeds that {reference} has too ({seeds}).")
    for source in dict.fromkeys(row.source for row in rows if row.source):
        methods = ", ".join(dict.fromkeys(row.method for row in rows if row.source == source))
        lines.append(f"{DAGGER} published, not measured here: {methods}: {source}.")
    return lines


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


def with_words(table: str, lines: Sequence[str], form: str) -> str:
    """A table in one of FORMATS but CSV, with the lines of `sentences` in the same form below it."""
    title = "What they say (prompts, or the vocabulary words nearest to a learned context):"
    if form == "latex":
        return "\n".join([table, f"% {title}", *(f"%   {line}" for line in lines)])
    if form == "markdown":
        return "\n".join([table, "", title, "", *(f"- {line.replace('<', '&lt;')}" for line in lines)])
    return "\n".join([table, "", title, *(f"  {line}" for line in lines)])


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _mean(value: Mean | None) -> str:
    if value is None or value[1] is None:
        return _percent(value[0] if value else None)
    return f"{100 * value[0]:.1f} ± {100 * value[1]:.1f}"


def _difference(value: Difference | None) -> str:
    return "" if value is None else f"{100 * value.value:+.1f} [{100 * value.low:+.1f}, {100 * value.high:+.1f}]"


def _escape(text: str) -> str:
    return "".join(LATEX.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)
