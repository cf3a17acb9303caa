"""What people read of a run: `history.md` and `report.html`, both made from the run folder's own files alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipo.charts import Chart, make_chart
from ipo.errors import IpoError
from ipo.files import parse_rows, read_text, write_atomic
from ipo.history import History
from ipo.methods import curve_row
from ipo.prompt import HistoryEntry
from ipo.record import HISTORY_FILE
from ipo.render import render
from ipo.run_folder import RESULT_FILE, RunFolder, read_run, read_run_json, read_settings
from ipo.run_path import CONFIG_FILE

HISTORY_PAGE = "history.md"
REPORT_PAGE = "report.html"
CURVES_FILE = "curves.jsonl"
NAMES = {
    "first": "first prompt",
    "hand-crafted": "hand-crafted prompt",
    "ipo": "ipo, best prompt",
    "ipo-ensemble": "ipo, ensemble",
    "select-80": "best of 80 prompts",
    "ensemble-80": "mean of 80 prompts",
}
"""How tables call the predictors of a result."""
WEAK_MODEL_NOTE = (
    "mini, the offline stand-in for CLIP, hardly reacts to the wording of a prompt: these figures show the machine at "
    "work, not what IPO does for CLIP."
)


@dataclass(frozen=True)
class ResultRow:
    """One predictor's line in a results table; figures are ready to be printed."""

    name: str
    figures: tuple[str, ...]
    """One for each of `result_columns`."""
    prompts: tuple[str, ...]


def percent(value: float | None) -> str:
    """A fraction as percent with one decimal, or a dash."""
    return "-" if value is None else f"{100 * value:.1f}"


def with_interval(figures: dict[str, float] | None) -> str:
    """`55.7 [53.2, 58.1]`: accuracy in percent with its 95% interval."""
    if figures is None:
        return "-"
    return f"{percent(figures['accuracy'])} [{percent(figures['low'])}, {percent(figures['high'])}]"


def result_columns(result: dict[str, Any]) -> list[str]:
    """Headings of the results table: the halves with H, or all classes at once, and then the other test sets."""
    halves = ["base", "new", "H"] if result["classes"] == "base" else ["all classes"]
    return [*halves, *result["targets"]]


def result_rows(result: dict[str, Any]) -> list[ResultRow]:
    """The results table of any method's `result.json`."""
    rows = []
    for name, figures in result["predictors"].items():
        low, high = figures["H_interval"] or (None, None)
        harmonic = None if figures["H"] is None else {"accuracy": figures["H"], "low": low, "high": high}
        halves = [figures["base"], figures["new"], harmonic] if result["classes"] == "base" else [figures["base"]]
        cells = [with_interval(part) for part in (*halves, *map(figures["targets"].get, result["targets"]))]
        rows.append(ResultRow(NAMES.get(name, name), tuple(cells), tuple(figures.get("prompts") or ())))
    return rows


def write_reports(folder: Path) -> Path:
    """Write the pages of a run, finished or not, and return the path of `report.html`."""
    run = read_run(folder)
    result = read_run_json(folder, RESULT_FILE) if (folder / RESULT_FILE).exists() else None
    values: dict[str, Any] = {
        "run": run,
        "name": folder.resolve().name,
        "result": result,
        "columns": result_columns(result) if result else [],
        "rows": result_rows(result) if result else [],
        "note": WEAK_MODEL_NOTE if run.get("clip", {}).get("name") == "mini" else "",
        "config": read_text(folder / CONFIG_FILE),
        "history": None,
        "charts": curve_charts(parse_rows(folder / CURVES_FILE, curve_row)),
    }
    if (folder / HISTORY_FILE).exists():
        history = History.read(read_settings(folder).search.select, folder / HISTORY_FILE)
        reasons = Counter((entry.reason or "").partition(":")[0] for entry in history.rejects())
        values |= {"best": _best(history, result), "untestable": (result or {}).get("untestable", [])}
        values |= {"history": history, "reasons": reasons.most_common(), "charts": history_charts(history)}
        write_atomic(folder / HISTORY_PAGE, render("history.md.j2", **values) + "\n")
    write_atomic(folder / REPORT_PAGE, render("report.html.j2", **values) + "\n")
    return folder / REPORT_PAGE


def _best(history: History, result: dict[str, Any] | None) -> HistoryEntry | None:
    """The prompt that the run was tested with, or the best so far."""
    tested = (result or {}).get("best", {}).get("id")
    ranked = history.ranked()
    return next((entry for entry in ranked if entry.id == tested), next(iter(ranked), None))


def report_stop(folder: RunFolder, error: BaseException) -> None:
    """Note that `error` ended a run early, and write its pages as far as it came; a failure here must not hide it."""
    with suppress(IpoError, OSError):
        folder.update(status=f"stopped: {type(error).__name__}")
        write_reports(folder.path)


def history_charts(history: History) -> list[Chart]:
    """Training accuracy and loss of every scored candidate over steps, with the best so far as a line."""
    scored = history.scored()
    if not scored:
        return []
    accuracy = [(e.step, 100 * e.score.accuracy, e.text) for e in scored if e.score]
    loss = [(e.step, e.score.loss, e.text) for e in scored if e.score]
    return [
        make_chart(
            ("Training accuracy of every candidate", "step", "accuracy, %"),
            [(step, value, f"{value:.1f}%  {text}") for step, value, text in accuracy],
            [("best so far", running_best(accuracy, max))],
        ),
        make_chart(
            ("Training loss of every candidate", "step", "cross-entropy, nats"),
            [(step, value, f"{value:.4f}  {text}") for step, value, text in loss],
            [("best so far", running_best(loss, min))],
        ),
    ]


def running_best(points: Iterable[tuple[int, float, str]], better: Any) -> list[tuple[float, float]]:
    """The best value up to and including each step."""
    best: dict[int, float] = {}
    value = None
    for step, current, _ in points:
        value = current if value is None else better(value, current)
        best[step] = value
    return [(float(step), value) for step, value in best.items()]


def curve_charts(rows: list[dict[str, Any]]) -> list[Chart]:
    """One chart for each figure that a fit logged by epoch."""
    names = [name for name, value in (rows[-1] if rows else {}).items() if _is_curve(name, value)]
    charts = []
    for name in names:
        points = [(float(row["epoch"]), float(row[name])) for row in rows if name in row]
        charts.append(make_chart((name, "epoch", ""), [], [(name, points)]))
    return charts


def _is_curve(name: str, value: object) -> bool:
    return name not in ("epoch", "seconds") and isinstance(value, int | float)


def history_rows(history: History, by: str, top: int | None, rejects: bool) -> list[HistoryEntry]:
    """The entries that `ipo history` shows: scored ones best first or in order, or the rejects in order."""
    scored = history.ranked() if by == "score" else history.scored()
    return (history.rejects() if rejects else scored)[:top]
