"""Rows of one kind as a sequence that notebooks show as a table, and that pandas takes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from ipo.errors import ConfigError
from ipo.screen import counted, printable

if TYPE_CHECKING:
    import pandas

T = TypeVar("T")

SHOWN = 20
"""Rows that are shown; all of them are there."""


class Table(Sequence[T], Generic[T]):
    """An immutable list of rows; `record` makes a row a mapping of column names to plain values."""

    def __init__(self, rows: Iterable[T], record: Callable[[T], dict[str, Any]], noun: str = "row") -> None:
        self._rows, self._record, self._noun = tuple(rows), record, noun

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Table[T]: ...
    def __getitem__(self, index: int | slice) -> T | Table[T]:
        """A row, or some rows as a table."""
        return self._with(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def sort(self, key: Callable[[T], Any], *, reverse: bool = False) -> Table[T]:
        """The rows in another order, as a table; of equals the earlier one stays first."""
        return self._with(sorted(self._rows, key=key, reverse=reverse))

    def filter(self, wanted: Callable[[T], bool]) -> Table[T]:
        """The rows that are wanted, as a table."""
        return self._with(filter(wanted, self._rows))

    def _with(self, rows: Iterable[T]) -> Table[T]:
        return Table(rows, self._record, self._noun)

    def to_records(self) -> list[dict[str, Any]]:
        """Each row as a mapping of column names to plain values."""
        return [self._record(row) for row in self._rows]

    def to_pandas(self) -> pandas.DataFrame:
        """A data frame with a column for each value. Raises `ConfigError` where pandas is not installed."""
        try:
            found: Any = importlib.import_module("pandas")
        except ImportError as error:
            raise ConfigError("pandas is not installed", remedy="pip install pandas, or use to_records()") from error
        frame: pandas.DataFrame = found.DataFrame.from_records(self.to_records())
        return frame

    def __repr__(self) -> str:
        more = [f"... {len(self) - SHOWN} more"] if len(self) > SHOWN else []
        return "\n".join([f"{counted(len(self), self._noun)}:", *map(repr, self._rows[:SHOWN]), *more])

    def _repr_html_(self) -> str:
        """The table in a notebook; all texts are shown as they are, and run nothing."""
        records = [self._record(row) for row in self._rows[:SHOWN]]
        columns = list(dict.fromkeys(name for record in records for name in record))
        head = "".join(f"<th>{escape(name)}</th>" for name in columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell(record.get(name)))}</td>" for name in columns) + "</tr>"
            for record in records
        )
        more = f"<p>... {len(self) - SHOWN} more</p>" if len(self) > SHOWN else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def cell(value: Any) -> str:
    """A value as a cell shows it: figures with four decimals at most, and nothing for what is not there."""
    if value is None:
        return ""
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else printable(str(value))
