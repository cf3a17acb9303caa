"""Text files that a user names, read whole: one way to say that there is none, or that it is not what it should be."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

from ipo.errors import DataError, IpoError
from ipo.store.disk import reason_of

MAX_BYTES = 1 << 29
"""Most bytes of such a file; the largest published split file has 100 MB."""
_READ_REASONS = {errno.EISDIR: "it is a folder, not a file", errno.ENOENT: "no such file"}


def read_input(path: Path, what: str, kind: type[IpoError] = DataError, remedy: str = "Check the path") -> str:
    """The text of a file, with or without a byte order mark. `what` it should be is what the error, a `kind`, names."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"it is longer than {MAX_BYTES:,} bytes")
        return content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise kind(f"cannot read {what}: {input_fault(error)}", where=str(path), remedy=remedy) from error


def read_json_input(path: Path, what: str, kind: type[IpoError] = DataError, remedy: str = "Check the path") -> Any:
    """The value in a JSON file. Raises as `read_input`, also where it is no JSON."""
    text = read_input(path, what, kind, remedy)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise kind(f"cannot read {what}: {input_fault(error)}", where=str(path), remedy=remedy) from error


def input_fault(error: Exception) -> str:
    """What is wrong with a file that cannot be read or parsed, in a few words."""
    if isinstance(error, OSError):
        return _READ_REASONS.get(error.errno or 0) or reason_of(error)
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return "a number in it has thousands of digits" if "int_max_str_digits" in str(error) else str(error)
