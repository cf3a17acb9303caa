"""Some runs side by side: what each found, on which test images, and how they differ where the images are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ipo.comparison.paired import paired_differences
from ipo.comparison.verdict import Answers
from ipo.errors import RunError
from ipo.report.lineage import Change, word_changes
from ipo.report.pages import result_columns, result_rows, shown_result
from ipo.runs.result import CORRECT_FILE, Result, read_result
from ipo.runs.verdicts import read_verdicts
from ipo.screen import printable

MOST = 8
"""Runs that are compared at once."""


@dataclass(frozen=True)
class Side:
    """One of the runs, with texts that are fit for a page."""

    name: str
    method: str
    figures: Mapping[str, str]
    """By the headings of results tables."""
    words: tuple[tuple[Change, str], ...]
    """Its prompt, as it differs from that of the first run."""
    difference: str
    """To the first run, in points with the interval; empty where the test images are others."""


def compare(runs: Mapping[str, Path]) -> tuple[list[str], list[Side]]:
    """The headings and the sides. Raises `RunError` for a run that is not done, and for too many or too few."""
    if not 2 <= len(runs) <= MOST:
        raise RunError(f"{len(runs)} runs cannot be compared", remedy=f"Choose two to {MOST}")
    results = {name: read_result(folder) for name, folder in runs.items()}
    first, *_ = runs
    sides = []
    for name, result in results.items():
        told = shown_result(result)
        rows = {key: row for row in result_rows(told) for key in row.keys}
        row = rows.get(told.headline) or next(iter(rows.values()))
        before, own = (_prompt(shown_result(one)) for one in (results[first], result))
        words = word_changes(before if before and own else own, own)
        figures = dict(zip(result_columns(told), row.figures, strict=True))
        difference = "" if name == first else _difference((runs[name], result), (runs[first], results[first]))
        sides.append(Side(printable(name), told.method, figures, tuple(words), difference))
    return list(dict.fromkeys(head for side in sides for head in side.figures)), sides


def _prompt(result: Result) -> str:
    headline = result.predictors.get(result.headline)
    prompts = (headline and headline.prompts) or ()
    return prompts[0] if prompts else ""


def _difference(ours: tuple[Path, Result], theirs: tuple[Path, Result]) -> str:
    """`+1.2 [-0.5, +2.9]`, in H or accuracy, from what both did on the same images; empty where those are others."""
    sides = []
    for folder, result in (ours, theirs):
        if result.metric == "map" or not result.headline or not (folder / CORRECT_FILE).exists():
            return ""
        images, verdicts = read_verdicts(folder, result)
        sides.append(Answers(0, verdicts.get(result.headline, {}), images, result.test_hashes))
    differences = paired_differences(sides[:1], sides[1:])
    found = differences.get("H") or differences.get("base")
    if found is None:
        return ""
    value, low, high = (100 * share for share in (found.value, found.low, found.high))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
