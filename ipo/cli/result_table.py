"""The table of test accuracies that `ipo optimize` and `ipo baseline` end with."""

from __future__ import annotations

import sys
import textwrap

from ipo.cli.console import screen_width
from ipo.comparison.formats import screen_table
from ipo.comparison.tables import Column
from ipo.prompt import METRIC_WORDS
from ipo.report.pages import legend, result_columns, result_rows
from ipo.runs.result import Result

_NO_BOUND = 1 << 16


def result_table(result: Result) -> str:
    """Every predictor of a `result.json` on every test set, as standard output can show it."""
    rows = result_rows(result)
    columns = [Column("", tuple(row.name for row in rows), is_label=True)]
    for index, heading in enumerate(result_columns(result)):
        columns.append(Column(heading, tuple(row.figures[index] for row in rows)))
    width = screen_width()
    table = screen_table(columns, [""] * len(rows), width, sys.stdout.encoding or "utf-8")
    words = [textwrap.fill(line, width or _NO_BOUND, subsequent_indent="  ") for line in legend(result)]
    return "\n".join([f"Test {METRIC_WORDS[result.metric]}, % [95% interval]", table, *words])
