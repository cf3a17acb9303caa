"""How wide the output is, and the console that tables of the commands are printed on."""

from __future__ import annotations

import os
import shutil
import sys

from rich.console import Console

_NO_BOUND = 1 << 16
_LEAST = 40


def screen_width() -> int | None:
    """Columns of the terminal; None in a pipe or a file, where nothing is wrapped, unless COLUMNS asks for it."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return max(_LEAST, shutil.get_terminal_size().columns)
    return None


def output() -> Console:
    """Standard output as a console that takes texts as they are; in a pipe no line is broken."""
    return Console(highlight=False, markup=False, emoji=False, width=screen_width() or _NO_BOUND)
