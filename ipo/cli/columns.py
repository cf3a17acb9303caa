"""Tables of any length as plain aligned columns, whose texts are folded at the width of the screen."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ipo.cli.console import screen_width
from ipo.screen import printable

_GAP = "  "
_NARROWEST = 12


def columns(headings: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[str]) -> Iterator[str]:
    """The lines of a table. The columns named in `texts` begin at the left and are folded, the others end at the right.

    What would steer a terminal is made visible. In a pipe nothing is folded.
    """
    shown = [headings, *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*shown, strict=True)]
    folds = [heading in texts for heading in headings]
    if width := screen_width():
        widths = _narrowed(widths, folds, width - len(_GAP) * (len(widths) - 1))
    for row in shown:
        cells = [_folded(cell, size) if fold else [cell] for cell, size, fold in zip(row, widths, folds, strict=True)]
        for parts in zip_longest(*cells, fillvalue=""):
            padded = [_padded(part, size, fold) for part, size, fold in zip(parts, widths, folds, strict=True)]
            yield _GAP.join(padded).rstrip()


def _narrowed(widths: Sequence[int], folds: Sequence[bool], room: int) -> list[int]:
    """Widths that fit into `room`: of the columns that fold the widest give way, down to the narrowest legible one."""
    found = list(widths)
    while sum(found) > room:
        widest = max((place for place, fold in enumerate(folds) if fold), key=lambda place: found[place])
        if found[widest] <= _NARROWEST:
            break
        found[widest] -= 1
    return found


def _padded(cell: str, width: int, left: bool) -> str:
    """A cell at its width in columns of a screen."""
    space = " " * (width - cell_len(cell))
    return cell + space if left else space + cell


def _folded(text: str, room: int) -> list[str]:
    """A text as lines of at most `room` columns."""
    if cell_len(text) <= room:
        return [text]
    if text.isascii():
        return textwrap.wrap(text, room)
    return [line.plain.rstrip() for line in Text(text).wrap(Console(width=room), room)]
