"""What `report.html` shows beside its tables: charts, candidates, lineage, classes, pictures, exchanges."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ipo.prompt import HistoryEntry
from ipo.render import asset
from ipo.report.bars import Bars, interval_bars
from ipo.report.candidates import candidates
from ipo.report.classes import confusions, recall_bars, recalls
from ipo.report.curves import curve_charts, history_charts
from ipo.report.exchanges import exchanges
from ipo.report.lineage import generations
from ipo.report.pictures import captioned, kinds, read_thumbnails, shown_pictures
from ipo.runs.path import CAPTIONS_FILE
from ipo.runs.predictions import Predictions
from ipo.runs.result import Figures, Result
from ipo.screen import printable
from ipo.search.history import History
from ipo.search.propose import REJECT_WORDS, reject_counts
from ipo.search.record import REPLIES_FILE
from ipo.store.curves import CURVES_FILE, curve_row
from ipo.store.files import parse_rows

if TYPE_CHECKING:
    from ipo.report.pages import ResultRow

_PICTURES = 24
"""Most pictures of a kind that a page shows, however many the run kept."""


def view(
    folder: Path, values: Mapping[str, Any], result: Result | None, predictions: Predictions | None, pictures: bool
) -> dict[str, Any]:
    """The further values of the page; `result` and `predictions` as they are on disk, texts that come of them not."""
    headline = result.headline if result else ""
    recall = recalls(result, predictions, headline) if result else []
    shown = [replace(row, name=printable(row.name)) for row in recall]
    return {
        **page_parts(),
        **history_parts(folder, values["history"], values["best"]),
        **_picture_parts(folder, predictions, headline, pictures),
        "intervals": result_bars(values["result"], values["rows"]) if result else None,
        "main_column": ("H" if result.classes == "base" else "accuracy") if result else "",
        "recalls": shown,
        "recall_bars": recall_bars(shown) if shown else None,
        "recall_of": _recall_of(values["result"], predictions),
        "snippets": _snippets(folder) if result else {},
        "confusions": [
            replace(one, name=printable(one.name), taken_for=printable(one.taken_for))
            for one in confusions(predictions, headline)
        ],
    }


def _snippets(folder: Path) -> dict[str, str]:
    """Code that uses the best prompt, by the library, fit for a page."""
    from ipo.export.texts import snippets  # it takes torch along, which takes seconds

    return {to: "\n".join(map(printable, code.split("\n"))) for to, code in snippets(folder).items()}


def page_parts() -> dict[str, Any]:
    """The style and the script of the page, and the policy that lets no other script run in it."""
    script = asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "style": Markup(asset("page.css")),  # a file of our own
        "script": Markup(script),  # a file of our own
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
    }


def history_parts(folder: Path, history: History | None, best: HistoryEntry | None) -> dict[str, Any]:
    """What the page shows of a search, or of the epochs of another fit."""
    if history is None:
        charts = curve_charts([_shown_row(row) for row in parse_rows(folder / CURVES_FILE, curve_row)])
        return {"charts": charts, "candidates": None, "lineage": [], "exchanges": None, "meanings": {}}
    lineage = generations(history.entries, best.id) if best else []
    asked = (folder / REPLIES_FILE).exists()
    of_best = {generation.entry.step for generation in lineage}
    return {
        "charts": history_charts(history, best.id if best else None),
        "candidates": candidates(history, reject_counts(history.rejects())),
        "lineage": lineage,
        "exchanges": exchanges(folder, history.entries, of_best) if asked else None,
        "meanings": REJECT_WORDS,
    }


def _shown_row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {printable(name): value for name, value in row.items()}


def result_bars(result: Result, rows: Sequence[ResultRow]) -> Bars:
    """Each row of the results table by its main figure: H where there are base and new classes, else accuracy."""
    found = list[tuple[str, Figures, str]]()
    mark = None
    for row in rows:
        if not row.keys:  # what was drawn by chance is in the table alone
            continue
        predictor = result.predictors[row.keys[0]]
        figures = predictor.base
        if result.classes == "base":
            if predictor.H is None or predictor.H_interval is None:
                continue
            low, high = predictor.H_interval
            figures = Figures(accuracy=predictor.H, low=low, high=high, n=0)
        found.append((row.name, figures, "hot" if result.headline in row.keys else ""))
        mark = figures.value if "hand-crafted" in row.keys else mark
    if not found:
        return interval_bars([(row.name, result.predictors[row.keys[0]].base, "") for row in rows if row.keys])
    return interval_bars(found, mark)


def _recall_of(result: Result | None, predictions: Predictions | None) -> str:
    """What recall before is that of."""
    if result is None:
        return ""
    return "the hand-crafted prompt" if predictions and predictions.before else "the first prompt"


def _picture_parts(folder: Path, predictions: Predictions | None, headline: str, wanted: bool) -> dict[str, Any]:
    """The pictures that the run kept thumbnails of, with texts that are fit for a page."""
    thumbnails = read_thumbnails(folder) if wanted else {}
    found = kinds(predictions, headline, _PICTURES) if predictions and thumbnails else []
    told = captioned(folder) if thumbnails and (folder / CAPTIONS_FILE).exists() else []
    return {
        "kinds": [replace(kind, pictures=tuple(shown_pictures(kind.pictures, thumbnails))) for kind in found],
        "captioned": shown_pictures(told, thumbnails),
    }
