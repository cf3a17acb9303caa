"""What people read of a run: `history.md` and `report.html`, both made from the run folder's own files alone."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipo.comparison.names import target_names
from ipo.comparison.trials import read_toml, with_domains
from ipo.comparison.verdict import verdict
from ipo.data.uses import in_words
from ipo.errors import IpoError
from ipo.prompt import METRIC_WORDS, HistoryEntry, text_key
from ipo.registry import SEARCH
from ipo.render import render
from ipo.report.measured import measure, with_hand_crafted
from ipo.report.view import view
from ipo.runs.folder import RESULT_FILE, RunFolder, read_run, read_settings
from ipo.runs.path import CONFIG_FILE
from ipo.runs.predictions import read_predictions
from ipo.runs.result import Draws, Figures, Predictor, Result, read_result, to_json
from ipo.screen import counted, printable
from ipo.search.history import History
from ipo.search.propose import REJECT_WORDS, reject_counts
from ipo.search.record import HISTORY_FILE
from ipo.store.files import read_text, write_atomic

if TYPE_CHECKING:
    from ipo.scoring import Evaluation

HISTORY_PAGE = "history.md"
RESULT_PAGE = "result.md"
REPORT_PAGE = "report.html"
NAMES = {
    "photo": '"a photo of a"',
    "first": "first prompt",
    "hand-crafted": "hand-crafted prompt",
    "select-80": "best of 80 prompts",
    "ensemble-80": "mean of 80 prompts",
    "carprt": "80 prompts weighed by CARPRT",
    "zpe": "80 prompts weighed by ZPE",
    "waffle": "random words (Waffle)",
}
"""How tables call the predictors of a result, beside those that a search found."""
_LEGEND = (
    ("base", "base: the classes that the search saw; new: the others. Each compete among themselves only."),
    ("H", "H: the harmonic mean of the figures on base and new classes."),
    ("first", "first prompt: what the search began with."),
    ("hand-crafted", "hand-crafted prompt: the one that papers use for this dataset."),
    ("ensemble", "ensemble: several prompts, averaged."),
    ("select-80", "80 prompts: those that OpenAI wrote for CLIP; the best one by the training images, or their mean."),
    ("swapped", "swapped: each class has the descriptions of another one."),
    ("scrambled", "scrambled: the words of each class's descriptions are in disorder."),
    ("waffle", "random words: texts with the same random words and letters for all classes, as WaffleCLIP has them."),
    ("draws", "draws: of what was drawn at random, the mean over all draws and the middle 95% of them."),
)
"""What words of a results table mean, by the heading or predictor that brings them."""
WEAK_MODEL_NOTES = {
    "mini": "mini, the offline stand-in, is not CLIP: wording matters to it, most of all on drawings, but what helps "
    "it says little about what helps CLIP.",
    "mini-conse": "mini-conse, the former offline stand-in, hardly reacts to the wording of a prompt: these figures "
    "show the machine at work, not what IPO does for CLIP.",
}
"""What has to be said of results by a stand-in, by its name."""


@dataclass(frozen=True)
class ResultRow:
    """One predictor's line in a results table; figures are ready to be printed."""

    name: str
    figures: tuple[str, ...]
    """One for each of `result_columns`."""
    prompts: tuple[str, ...]
    keys: tuple[str, ...] = ()
    """The predictors that it stands for."""


def percent(value: float | None) -> str:
    """A fraction as percent with one decimal, or a dash."""
    return "-" if value is None else f"{100 * value:.1f}"


def with_interval(figures: Figures | Evaluation | None) -> str:
    """`55.7 [53.2, 58.1]`: accuracy, or mean average precision, in percent with its 95% interval."""
    return "-" if figures is None else _interval(figures.value, figures.low, figures.high)


def _interval(value: float, low: float | None, high: float | None) -> str:
    return f"{percent(value)} [{percent(low)}, {percent(high)}]"


def classes_of(facts: Mapping[str, Any]) -> str:
    """`50 base classes`, `18 classes`: what a fit was on, from the facts of a run; earlier ones did not count them."""
    count, half = facts.get("class_count"), "base " if facts.get("classes") == "base" else ""
    return counted(count, f"{half}class") if count else f"{half or 'all '}classes"


def result_columns(result: Result) -> list[str]:
    """Headings of the results table: the halves with H, or all classes at once, and then the other test sets."""
    halves = ["base", "new", "H"] if result.classes == "base" else ["all classes"]
    return [*halves, *target_names(result.targets).values()]


def result_rows(result: Result) -> list[ResultRow]:
    """The results table of any method."""
    rows: list[ResultRow] = []
    for name, figures in result.predictors.items():
        halves = [with_interval(figures.base)]
        if result.classes == "base":
            halves += [with_interval(figures.new), _harmonic(figures)]
        targets = (with_interval(figures.targets.get(target)) for target in result.targets)
        prompts = tuple(printable(prompt) for prompt in figures.prompts or ())
        rows.append(ResultRow(printable(_label(name, result)), (*halves, *targets), prompts, (name,)))
    return [*_without_twins(rows), *map(partial(_drawn_row, result), result.draws.values())]


def _drawn_row(result: Result, draws: Draws) -> ResultRow:
    """The mean of some draws, with the middle 95% of them in the place of an interval."""
    halves = ["base", "new", "H"] if result.classes == "base" else ["base"]
    found = [draws.sets.get(name) for name in (*halves, *result.targets)]
    count = counted(len(draws.sets["base"].values), "draw")
    figures = tuple("-" if one is None else _interval(one.mean, one.low, one.high) for one in found)
    return ResultRow(printable(f"{draws.what}, {count}"), figures, ())


def _label(name: str, result: Result) -> str:
    headline = result.headline or SEARCH  # results of earlier versions do not tell
    found = {headline: "best prompt", f"{headline}-ensemble": "ensemble"} if result.best else {}
    return f"{headline}, {found[name]}" if name in found else NAMES.get(name, name)


def _harmonic(figures: Predictor) -> str:
    low, high = figures.H_interval or (None, None)
    return "-" if figures.H is None else _interval(figures.H, low, high)


def legend(result: Result) -> list[str]:
    """A line for each word of a results table that needs one."""
    words = {*result_columns(result), *result.predictors}
    words |= {"draws"} if result.draws else set()
    words |= {name.rpartition("-")[2] for name in result.predictors}
    return [line for word, line in _LEGEND if word in words] + absent_classes(result)


def absent_classes(result: Result) -> list[str]:
    """What mean average precision is, where it is the metric, and which classes are left out of it, a line each."""
    if result.metric != "map":
        return []
    first = next(iter(result.predictors.values()))
    sets = {"base": first.base, **({"new": first.new} if first.new else {}), **first.targets}
    names = target_names(result.targets)
    left = [
        f"Left out{'' if name == 'base' else f' of {names.get(name, name)}'}, since no test image has them: "
        + ", ".join(map(printable, figures.absent))
        for name, figures in sets.items()
        if figures.absent
    ]
    return ["mAP: the mean over classes of the average precision of their images.", *left]


def rejects_in_words(counts: Mapping[str, int]) -> list[str]:
    """`unlikely: 3 (the language model itself ...)`, the most frequent kind first."""
    meanings = {kind: f" ({words})" for kind, words in REJECT_WORDS.items()}
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return [f"{kind}: {count}{meanings.get(kind, '')}" for kind, count in ordered]


def _without_twins(rows: Sequence[ResultRow]) -> Iterator[ResultRow]:
    """The rows, with one in the place of those that have the same prompts; it bears all their names."""
    twins: dict[object, list[ResultRow]] = {}
    for row in rows:
        twins.setdefault(tuple(map(text_key, row.prompts)) or row.name, []).append(row)
    for same in twins.values():
        keys = tuple(key for row in same for key in row.keys)
        yield replace(same[0], name=" = ".join(row.name for row in same), keys=keys)


def write_reports(folder: Path) -> Path:
    """Write the pages of a run, finished or not, and return the path of `report.html`."""
    values = page_values(folder)
    if values["history"]:
        write_atomic(folder / HISTORY_PAGE, render("history.md.j2", **values) + "\n")
    elif values["result"]:
        write_atomic(folder / RESULT_PAGE, render("result.md.j2", **values) + "\n")
    return write_report(folder / REPORT_PAGE, values)


def test_command(prompt: str, run: Mapping[str, Any]) -> str:
    """The command that tests a prompt on pictures in folders by class, with the model of its run."""
    offline = ["--offline"] if run.get("offline") else []
    words = [
        "ipo",
        "evaluate",
        "--dataset",
        "folder:PHOTOS",
        "--clip",
        str(run.get("clip", {}).get("name", "auto")),
        *offline,
    ]
    return shlex.join([*words, "--prompt", prompt])


def write_report(place: Path, values: Mapping[str, Any]) -> Path:
    """Write the report page at some `place`."""
    write_atomic(place, render("report.html.j2", **values) + "\n")
    return place


def page_values(folder: Path, pictures: bool = True) -> dict[str, Any]:
    """What the pages of a run are filled with, from the files of its folder alone; with `pictures`, or without any."""
    run = shown(read_run(folder))
    run["dataset"] = printable(with_domains(run.get("dataset", ""), read_toml(folder)))
    predictions = read_predictions(folder)
    found = read_result(folder) if (folder / RESULT_FILE).exists() else None
    result = shown_result(with_hand_crafted(found, predictions)) if found else None
    history = read_shown_history(folder)
    best = _best(history, result) if history else None
    rows = result_rows(result) if result else []
    values: dict[str, Any] = {
        "run": run,
        "classes": classes_of(run),
        "name": printable(folder.resolve().name),
        "result": result,
        "columns": result_columns(result) if result else [],
        "rows": rows,
        "legend": legend(result) if result else [],
        "verdict": verdict(result) if result else [],
        "metric": METRIC_WORDS[result.metric] if result else "accuracy",
        "training": METRIC_WORDS[next((entry.score.metric for entry in history or () if entry.score), "accuracy")],
        "measured": measure(folder, found, predictions) if found else [],
        "saw": in_words(result.uses) if result else "",
        "note": WEAK_MODEL_NOTES.get(run.get("clip", {}).get("name"), ""),
        "config": "\n".join(map(printable, read_text(folder / CONFIG_FILE).split("\n"))),
        "history": history,
        "best": best,
        "command": test_command(best.text, run) if best else "",
        "untestable": result.untestable if result else [],
        "reasons": rejects_in_words(reject_counts(history.rejects())) if history else [],
    }
    return values | view(folder, values, found, predictions, pictures)


def read_shown_history(folder: Path) -> History | None:
    """The history of a search with texts that are fit for a page; None for another method."""
    if not (folder / HISTORY_FILE).exists():
        return None
    history = History.read(read_settings(folder).search.select, folder / HISTORY_FILE)
    history.entries = [shown_entry(entry) for entry in history.entries]
    return history


def shown_result(result: Result) -> Result:
    """The result with texts that are fit for a page."""
    return Result.model_validate(shown(to_json(result)))


def shown(value: Any) -> Any:
    """A JSON value whose texts are fit for a page: on one line, and without raw control characters."""
    if isinstance(value, dict):
        return {shown(key): shown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shown(item) for item in value]
    return printable(value) if isinstance(value, str) else value


def shown_entry(entry: HistoryEntry) -> HistoryEntry:
    """A line of the history, fit for a page or a terminal."""
    return replace(entry, text=printable(entry.text), reason=printable(entry.reason) if entry.reason else entry.reason)


def _best(history: History, result: Result | None) -> HistoryEntry | None:
    """The prompt that the run was tested with, or the best so far."""
    tested = result.best.id if result and result.best else None
    ranked = history.ranked()
    return next((entry for entry in ranked if entry.id == tested), next(iter(ranked), None))


def report_stop(folder: RunFolder, error: BaseException) -> None:
    """Note that `error` ended a run early, and write its pages as far as it came; a failure here must not hide it."""
    with suppress(IpoError, OSError):
        folder.update(status=f"stopped: {type(error).__name__}")
        write_reports(folder.path)
