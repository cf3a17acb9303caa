"""A comparison as text, Markdown, CSV or LaTeX. Accuracies are printed in percent; published rows carry a dagger."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from ipo.compare.rows import AVERAGE, Difference, Mean, Row
from ipo.prompt import CLASS_PLACEHOLDER

DAGGER = "†"

LATEX = {"\\": r"\textbackslash ", "±": r"$\pm$", "Δ": r"$\Delta$", DAGGER: r"$^\dagger$", "<": "$<$", ">": "$>$"}
"""Characters with a command of their own; see `_escape` for those that take a backslash."""


def as_text(rows: Sequence[Row], reference: str, width: int = 160) -> str:
    """A table for the terminal, with a line between datasets."""
    table = Table(show_edge=False, pad_edge=False)
    heads, printed = cells(rows)
    for index, head in enumerate(heads):
        table.add_column(head, justify="left" if index < 2 else "right", no_wrap=index != 1, overflow="fold")
    for index, line in enumerate(printed):
        ends = index + 1 < len(rows) and rows[index + 1].dataset != rows[index].dataset
        table.add_row(*line, end_section=ends)
    file = io.StringIO()
    Console(file=file, width=width, markup=False, highlight=False).print(table)
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
    for name in ("base", "new", "H"):
        heads += [f"difference_{name}", f"difference_{name}_low", f"difference_{name}_high"]
    heads += [column for spec in targets for column in (spec, f"{spec}_std")]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*heads, "seconds", "cost", "sentence"])
    for row in rows:
        values: list[object] = [row.dataset, row.method, row.source or "measured", " ".join(map(str, row.seeds))]
        values += [*row.base, *(row.new or (None, None)), row.harmonic_mean]
        for name in ("base", "new", "H"):
            found = row.differences.get(name)
            values += [found.value, found.low, found.high] if found else [None] * 3
        values += [value for spec in targets for value in row.targets.get(spec, (None, None))]
        writer.writerow([*values, row.seconds, row.cost, row.sentence])
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
            for name in ("base", "new", "H")
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
    for source in dict.fromkeys(row.source for row in rows if row.source):
        methods = ", ".join(dict.fromkeys(row.method for row in rows if row.source == source))
        lines.append(f"{DAGGER} published, not measured here: {methods}: {source}.")
    return lines


def sentences(rows: Sequence[Row], perplexity: Callable[[list[str]], list[float]] | None = None) -> str:
    """What each method's first run would say: its prompt, or the words nearest to its context; with perplexities."""
    said = [(row, row.sentence) for row in rows if row.sentence]
    texts = [sentence.replace(CLASS_PLACEHOLDER, "thing") for _, sentence in said]
    figures = [f"  perplexity {value:,.0f}" for value in perplexity(texts)] if perplexity else [""] * len(said)
    lines = ["What they say (a prompt, or the vocabulary words nearest to a learned context):"]
    for (row, sentence), fluency in zip(said, figures, strict=True):
        lines.append(f"  {row.dataset}, {row.method}: {sentence}{fluency}")
    return "\n".join(lines)


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
