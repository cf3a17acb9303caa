"""One table of a SQLite file, shared by processes: values by who made them and what they were made of."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ipo.errors import RunError
from ipo.store.disk import writing

Key = TypeVar("Key", str, bytes)

_LOOKUP = 500
"""Keys in one query; SQLite bounds the number of its parameters."""


@dataclass(frozen=True)
class Table:
    """Where the table is, and what it is called."""

    path: Path
    what: str
    """What errors call the file."""
    name: str
    columns: tuple[str, str, str]
    """Maker, key and value, each with its SQLite type: `model TEXT`."""

    @contextmanager
    def opened(self) -> Iterator[OpenTable]:
        """The table, made where it is not there. Raises `RunError` naming the file where SQLite fails, inside too."""
        maker, key, value = (column.partition(" ")[0] for column in self.columns)
        columns = f"{', '.join(self.columns)}, PRIMARY KEY ({maker}, {key})"
        with writing(self.path.parent):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as connection:
                connection.execute(f"CREATE TABLE IF NOT EXISTS {self.name} ({columns}) WITHOUT ROWID")
                yield OpenTable(connection, self.name, maker, key, value)
        except sqlite3.Error as error:
            remedy = "Delete it, or free its disk and make it writable"
            raise RunError(f"cannot use the {self.what}: {error}", where=str(self.path), remedy=remedy) from error


@dataclass(frozen=True)
class OpenTable:
    """A table that is open; the last three are names of its columns."""

    connection: sqlite3.Connection
    name: str
    maker: str
    key: str
    value: str

    def load(self, maker: str, keys: Sequence[Key]) -> dict[Key, Any]:
        """The values of those `keys` that the table has of this maker."""
        found: dict[Key, Any] = {}
        for start in range(0, len(keys), _LOOKUP):
            part: Sequence[Key] = keys[start : start + _LOOKUP]
            marks = ",".join("?" * len(part))
            query = (
                f"SELECT {self.key}, {self.value} FROM {self.name} WHERE {self.maker} = ? AND {self.key} IN ({marks})"
            )
            found.update(self.connection.execute(query, (maker, *part)))
        return found

    def save(self, maker: str, rows: Iterable[tuple[Key, object]], *, replace: bool = False) -> None:
        """Add keys with their values, all in one transaction; what is there stays as it is, or is replaced.

        Raises `sqlite3.OperationalError` where the file cannot be written.
        """
        verb = "REPLACE" if replace else "IGNORE"
        with self.connection:
            self.connection.executemany(
                f"INSERT OR {verb} INTO {self.name} VALUES (?, ?, ?)", [(maker, key, value) for key, value in rows]
            )
