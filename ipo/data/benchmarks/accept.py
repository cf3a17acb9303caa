"""Whether a fetched file is what the catalogue says: by its published checksum or, where none is, by its content."""

from __future__ import annotations

import re
from pathlib import Path

from ipo.data.archives import BROKEN_ARCHIVE, is_archive, members, unreadable, verify
from ipo.data.benchmarks.catalogue import Archive, CatalogueEntry
from ipo.errors import DataError

CLASS_NAMES = "classnames.txt"
"""The list of ImageNet's class names, which its variants share."""

_NAME_LINE = re.compile(r"n\d{8} +\S.*")
_PATH_LINE = re.compile(r".+/.+/.+ \d+")
_HEAD_BYTES = 4096


def accept(entry: CatalogueEntry, row: Archive, file: Path) -> None:
    """Raises `DataError`, which says what was received instead, unless `file` can be the one of this row.

    Without a checksum an archive has to be one to its end, and every line of a list of the list's kind.
    """
    try:
        if row.checksum:
            verify(file, row.checksum)
        elif is_archive(Path(row.file)):
            _require_archive(file)
        elif row.file == CLASS_NAMES:
            _require_lines(file, _NAME_LINE, entry.classes, f"{entry.classes} lines like 'n01440764 tench'")
        else:
            _require_lines(file, _PATH_LINE, 1, "lines like 'real/zebra/1.jpg 344'")
    except OSError as error:
        raise unreadable(error, file) from error


def _require_archive(file: Path) -> None:
    try:
        empty = sum(1 for _ in members(file)) == 0
    except BROKEN_ARCHIVE as error:
        raise _refused(file, "a whole archive") from error
    if empty:
        raise _refused(file, "an archive with something in it")


def _require_lines(file: Path, pattern: re.Pattern[str], least: int, expected: str) -> None:
    lines = [line.strip() for line in file.read_text(encoding="utf-8", errors="replace").splitlines()]
    lines = [line for line in lines if line]
    if len(lines) < least or not all(map(pattern.fullmatch, lines)):
        raise _refused(file, expected)


def _refused(file: Path, expected: str) -> DataError:
    return DataError(
        f"{_described(file)} instead of {expected}",
        where=str(file),
        remedy="Remove the file if it is there, and try again later, or fetch it with a browser",
    )


def _described(file: Path) -> str:
    """What a file holds, in a few words."""
    with file.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if re.match(rb"\s*<(!doctype html|html)", head, re.IGNORECASE):
        title = re.search(rb"<title[^>]*>([^<]*)", head, re.IGNORECASE)
        named = f" titled '{title[1].decode('utf-8', 'replace').strip()}'" if title else ""
        return f"a web page{named}"
    return f"{file.stat().st_size:,} bytes that begin with {head[:40].decode('utf-8', 'replace')!r}"
