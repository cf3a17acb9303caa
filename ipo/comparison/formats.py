"""A comparison as text for the screen, Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Sequence
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from ipo.comparison.rows import Row
from ipo.comparison.tables import DAGGER, Column, columns
from ipo.data.uses import NOTHING
from ipo.render import markdown_text
from ipo.screen import encodable

LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "Δ": r"$\Delta$", DAGGER: r"$^\dagger$", "<": "$<$", ">": "$>$"}
LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "…": r"\dots{}", "|": "$|$"}
"""Characters with a command of their own; see `_escape` for those that take a backslash."""

_LABEL_WIDTH = 32
"""Longer names are written in several lines where the width is bounded."""

_LEAST_FIGURES, _LEAST_LABEL = 14, 8
"""Narrowest columns: an interval stays on one line."""

_BAR = 3
"""Characters between two columns."""


def as_text(rows: Sequence[Row], notes: Sequence[str], width: int | None = None, encoding: str = "utf-8") -> str:
    """A table with a line between datasets, for an output that can show what `encoding` can.

    Where it would be wider than `width` it becomes several tables below each other, and notes are wrapped; without a
    width every row and every note is one line.
    """
    table = screen_table(columns(rows), [row.dataset for row in rows], width, encoding)
    lines = [line for note in notes for line in _wrapped(encodable(note, encoding), width)]
    return "\n".join([table, "", *lines])


def screen_table(made: Sequence[Column], groups: Sequence[str], width: int | None, encoding: str) -> str:
    """Columns as one table, or as several where `width` is less than it needs; a rule after each group of lines."""
    plain = [_encodable(column, encoding) for column in made]
    ascii_only = encodable("━┃", encoding) != "━┃"
    return "\n\n".join(_text_table(panel, groups, ascii_only) for panel in _panels(plain, width))


def _encodable(column: Column, encoding: str) -> Column:
    cells = tuple(encodable(cell, encoding) for cell in column.cells)
    return Column(encodable(column.head, encoding), cells, column.is_label)


def _wrapped(note: str, width: int | None) -> list[str]:
    return textwrap.wrap(note, width, break_on_hyphens=False) if width else [note]


Sized = tuple[Column, int]
"""A column with the width that it is given."""


def _panels(made: Sequence[Column], width: int | None) -> list[list[Sized]]:
    """The columns with their widths, in as many groups as `width` makes necessary; each begins with the labels."""
    if width is None:
        return [[(column, _natural(column)) for column in made]]
    labels = [(column, min(_natural(column), _LABEL_WIDTH)) for column in made if column.is_label]
    share = max(_LEAST_LABEL, (width - _LEAST_FIGURES) // len(labels) - _BAR)
    labels = [(column, min(size, share)) for column, size in labels]
    room = max(_LEAST_FIGURES, width - sum(size + _BAR for _, size in labels))
    panels: list[list[Sized]] = []
    left = 0
    for column in made:
        if not column.is_label:
            size = min(_natural(column), room)
            if size + _BAR > left or not panels:
                panels.append(list(labels))
                left = room + _BAR
            panels[-1].append((column, size))
            left -= size + _BAR
    return panels


def _natural(column: Column) -> int:
    return max(map(cell_len, (column.head, *column.cells)))


def _text_table(panel: Sequence[Sized], datasets: Sequence[str], ascii_only: bool) -> str:
    """One table, without the rows that have no figure in it, and with a rule after each of the `datasets`."""
    table = Table(show_edge=False, pad_edge=False, box=box.ASCII_DOUBLE_HEAD if ascii_only else box.HEAVY_HEAD)
    for column, size in panel:
        justify: Literal["left", "right"] = "left" if column.is_label else "right"
        table.add_column(column.head, justify=justify, width=size, overflow="fold")
    figures = [column.cells for column, _ in panel if not column.is_label]
    shown = [index for index in range(len(datasets)) if any(cells[index] for cells in figures)]
    lines = [[_folded(column, index, size) for column, size in panel] for index in shown]
    for line, index, after in zip(lines, shown, [*shown[1:], None], strict=True):
        table.add_row(*line, end_section=after is not None and datasets[index] != datasets[after])
    file = io.StringIO()
    needed = sum(size + _BAR for _, size in panel)
    # In a notebook, and where FORCE_COLOR is set, rich would show the table itself, or colour it.
    options: dict[str, Any] = {"force_terminal": False, "force_jupyter": False, "color_system": None}
    Console(file=file, width=needed, markup=False, highlight=False, emoji=False, **options).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _folded(column: Column, index: int, size: int) -> str:
    """A cell; one of figures that is too wide has its interval on a line of its own."""
    cell = column.cells[index]
    return cell if column.is_label or cell_len(cell) <= size else cell.replace(" [", "\n[")


def as_markdown(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """A table for a README or an issue."""
    made = columns(rows)
    marks = ["---" if column.is_label else "---:" for column in made]
    lines = [[markdown_text(cell) for cell in line] for line in _lines(made)]
    table = ["| " + " | ".join(line) + " |" for line in (lines[0], marks, *lines[1:])]
    return "\n".join([*table, "", *(f"{markdown_text(note)}  " for note in notes)]).rstrip()


def _lines(made: Sequence[Column]) -> list[tuple[str, ...]]:
    """The headings, then each row."""
    return [tuple(column.head for column in made), *zip(*(column.cells for column in made), strict=True)]


def as_latex(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """A `tabular` for the booktabs package."""
    made = columns(rows)
    heads, *lines = [" & ".join(_escape(cell) for cell in line) + r" \\" for line in _lines(made)]
    body = []
    for index, line in enumerate(lines):
        if index and rows[index].dataset != rows[index - 1].dataset:
            body.append(r"\midrule")
        body.append(line)
    start = rf"\begin{{tabular}}{{{''.join('l' if column.is_label else 'r' for column in made)}}}"
    return "\n".join(
        [
            *(f"% {note}" for note in notes),
            start,
            r"\toprule",
            heads,
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def as_csv(rows: Sequence[Row]) -> str:
    """All figures as fractions, unrounded, a column each."""
    found = records(rows)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(found[0] if found else [])
    writer.writerows(row.values() for row in found)
    return file.getvalue().rstrip("\n")


def records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each row as a mapping of column names to its figures; all have the same columns."""
    targets = list(dict.fromkeys(spec for row in rows for spec in row.targets))
    return [_record(row, targets) for row in rows]


def _record(row: Row, targets: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"dataset": row.dataset, "method": row.method, "source": row.source or "measured"}
    found |= {"classes": row.classes, "seeds": " ".join(map(str, row.seeds))}
    found["uses"] = None if row.uses is None else " ".join(row.uses) or NOTHING
    for name, value in (("base", row.base), ("new", row.new or (None, None))):
        found |= {name: value[0], f"{name}_std": value[1]}
    found["H"] = row.harmonic_mean
    for name in ("base", "new", "H", *targets):
        one = row.differences.get(name)
        figures = (one.value, one.low, one.high, one.spread) if one else (None,) * 4
        found |= dict(zip((f"difference_{name}{end}" for end in ("", "_low", "_high", "_std")), figures, strict=True))
    for spec in targets:
        found[spec], found[f"{spec}_std"] = row.targets.get(spec, (None, None))
    return found | {"seconds": row.seconds, "cost": row.cost, "sentences": " | ".join(row.sentences)}


FORMATS: dict[str, Callable[[Sequence[Row], Sequence[str]], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "latex": as_latex,
    "csv": lambda rows, _: as_csv(rows),
}


def with_words(table: str, lines: Sequence[str], form: str) -> str:
    """A table in one of FORMATS but CSV, with the lines of `sentences` in the same form below it."""
    title = "What they say (prompts, or the vocabulary words nearest to a learned context):"
    if form == "latex":
        return "\n".join([table, f"% {title}", *(f"%   {line}" for line in lines)])
    if form == "markdown":
        return "\n".join([table, "", title, "", *(f"- {markdown_text(line)}" for line in lines)])
    return "\n".join([table, "", title, *(f"  {line}" for line in lines)])


def _escape(text: str) -> str:
    return "".join(LATEX.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)
