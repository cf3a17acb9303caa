"""The table of test accuracies that `ipo optimize` and `ipo baseline` end with."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from ipo.report import result_columns, result_rows


def result_table(result: dict[str, Any]) -> Table:
    """Every predictor of a `result.json` on every test set."""
    table = Table(title="Test accuracy, % [95% interval]", title_justify="left", show_edge=False, pad_edge=False)
    for heading in ("", *result_columns(result)):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in result_rows(result):
        table.add_row(row.name, *row.figures)
    return table
