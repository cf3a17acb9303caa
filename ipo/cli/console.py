"""How wide the output is, and the console that tables of the commands are printed on."""

from __future__ import annotations

import json
import os
import shutil
import sys
from typing import Any

from rich.console import Console

from ipo.screen import encodable, printable
from ipo.store.files import json_text

_NO_BOUND = 1 << 16
_LEAST = 40


def screen_width() -> int | None:
    """Columns of the terminal; None in a pipe or a file, where nothing is wrapped, unless COLUMNS asks for it."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return max(_LEAST, shutil.get_terminal_size().columns)
    return None


def print_json(value: Any, indent: int | None = 2) -> None:
    """A value as JSON on standard output; what would steer a terminal, or its encoding lacks, is escaped as in JSON."""
    text = json_text(value, indent)
    for character in set(text) - {"\n"}:
        if printable(character) != character or encodable(character, sys.stdout.encoding or "utf-8") != character:
            text = text.replace(character, json.dumps(character)[1:-1])
    print(text)


def output() -> Console:
    """Standard output as a console that takes texts as they are; in a pipe no line is broken."""
    return Console(highlight=False, markup=False, emoji=False, width=screen_width() or _NO_BOUND)
