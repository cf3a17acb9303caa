"""The table of test accuracies that `ipo optimize` and `ipo baseline` end with."""

from __future__ import annotations

import sys

from ipo.cli.console import screen_width
from ipo.compare.formats import screen_table
from ipo.compare.tables import Column
from ipo.report import result_columns, result_rows
from ipo.result import Result


def result_table(result: Result) -> str:
    """Every predictor of a `result.json` on every test set, as standard output can show it."""
    rows = result_rows(result)
    columns = [Column("", tuple(row.name for row in rows), is_label=True)]
    for index, heading in enumerate(result_columns(result)):
        columns.append(Column(heading, tuple(row.figures[index] for row in rows)))
    table = screen_table(columns, [""] * len(rows), screen_width(), sys.stdout.encoding or "utf-8")
    return f"Test accuracy, % [95% interval]\n{table}"
