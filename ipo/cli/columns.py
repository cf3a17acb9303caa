"""Tables of any length as plain aligned columns, the last of which is folded at the width of the screen."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ipo.cli.console import screen_width
from ipo.screen import printable

_GAP = "  "
_NARROWEST = 20


def columns(headings: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[str] = ()) -> Iterator[str]:
    """The lines of a table. Columns named in `left` and the last one begin at the left, the others end at the right.

    What would steer a terminal is made visible. In a pipe nothing is folded.
    """
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(headings, *shown, strict=True)][:-1]
    width = screen_width()
    room = max(_NARROWEST, width - sum(widths) - len(_GAP) * len(widths)) if width else None
    for row in [headings, *shown]:
        cells = [
            padding(cell, size, heading in left)
            for cell, size, heading in zip(row[:-1], widths, headings[:-1], strict=True)
        ]
        first, *more = folded(row[-1], room)
        yield _GAP.join([*cells, first])
        yield from (_GAP.join([*(" " * size for size in widths), line]) for line in more)


def padding(cell: str, width: int, left: bool) -> str:
    """A cell at its width in columns of a screen."""
    space = " " * (width - cell_len(cell))
    return cell + space if left else space + cell


def folded(text: str, room: int | None) -> list[str]:
    """A text as lines of at most `room` columns; one line without a bound."""
    if room is None or cell_len(text) <= room:
        return [text]
    if text.isascii():
        return textwrap.wrap(text, room)
    return [line.plain.rstrip() for line in Text(text).wrap(Console(width=room), room)]
