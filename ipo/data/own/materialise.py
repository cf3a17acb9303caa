"""Images out of shards or a hub as files in the cache, so that all that follows sees one kind of dataset: a table."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from ipo.data.archives import Budget
from ipo.errors import DataError
from ipo.store.cache import cache_place
from ipo.store.disk import writing
from ipo.store.files import write_atomic, write_json
from ipo.store.folders import made_once

TABLE = "table.csv"
"""The table in a materialised folder, in the format of `csv:FILE`."""

_PER_FOLDER = 1000


class Writer:
    """Writes images one by one, and at the end the table that lists them."""

    def __init__(self, folder: Path, sources: Sequence[Path]) -> None:
        self._folder, self._budget = folder, Budget(sources, folder)
        self._images = 0
        self._rows: list[tuple[str, str, str]] = []

    def add_image(self, opened: Callable[[], IO[bytes]], suffix: str) -> str:
        """Store what `opened` yields, an encoded image, under a name of our own making, which is returned."""
        path = self._folder / f"{self._images // _PER_FOLDER:04d}" / f"{self._images:07d}{suffix}"
        with opened() as source, writing(path, DataError):
            path.parent.mkdir(exist_ok=True)
            with path.open("wb") as output:
                self._budget.copy(source, output)
        self._images += 1
        return path.relative_to(self._folder).as_posix()

    def add_row(self, image: str, label: str, split: str) -> None:
        """List a stored image; `split` is empty if none is known."""
        self._rows.append((image, label, split))

    def finish(self, classnames: Mapping[str, str]) -> None:
        """Write the table, and the names of those labels that occur in it."""
        table = io.StringIO(newline="")
        csv.writer(table).writerows([("path", "label", "split"), *self._rows])
        write_atomic(self._folder / TABLE, table.getvalue())
        present = {label for _, label, _ in self._rows}
        write_json(self._folder / "classnames.json", {k: name for k, name in classnames.items() if k in present})


def identity_of(files: Sequence[Path]) -> str:
    """What tells the content of files from another one of the same size and time, without reading them."""
    stats = ((file.resolve(), file.stat()) for file in files)
    rows = ((file, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for file, s in stats)
    return "\n".join("\t".join(map(str, row)) for row in rows)


def materialised(
    kind: str, name: str, identity: str, sources: Sequence[Path], fill: Callable[[Writer], Mapping[str, str]]
) -> Path:
    """The table of a source whose images are in the cache; put there now by `fill`, which returns the class names.

    Another `identity` (content, version) is another folder. Nothing is left if `fill` fails; safe between processes.
    The archives in `sources` bound how much is written; without any, only the free disk does.
    """
    key = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    readable = "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")[-40:]

    def write(staged: Path) -> None:
        writer = Writer(staged, sources)
        writer.finish(fill(writer))

    return made_once(cache_place(kind, f"{readable}-{key}"), write) / TABLE
