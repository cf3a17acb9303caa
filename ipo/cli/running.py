"""What `ipo optimize` and `ipo baseline` share: they show what came of a run of any method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ipo.api.start import complain
from ipo.cli.console import output, print_json
from ipo.screen import counted, printable

if TYPE_CHECKING:
    from ipo.runs.result import Result


def show(result: Result | None, folder: Path, as_json: bool) -> None:
    """The result on standard output, as JSON or for people; nothing in a process that has none."""
    from ipo.runs.result import to_json

    if result is None:
        return
    if as_json:
        print_json(to_json(result))
    else:
        print_result(result, folder)
    complain(result, folder)


def print_result(result: Result, folder: Path) -> None:
    """What was found, the results table and where to read more, on standard output."""
    from ipo.cli.result_table import result_table
    from ipo.comparison.verdict import verdict
    from ipo.prompt import METRIC_WORDS
    from ipo.report.pages import HISTORY_PAGE, REPORT_PAGE, RESULT_PAGE, WEAK_MODEL_NOTES, rejects_in_words

    console = output()
    if result.best:
        console.print(printable(f"Stopped: {result.stopped}."))
        if result.rejects:
            said = "; ".join(rejects_in_words(result.rejects))
            console.print(printable(f"{counted(sum(result.rejects.values()), 'proposal')} not scored: {said}."))
        word = METRIC_WORDS[result.best.score.metric]
        console.print(f"Best prompt (training {word} {100 * result.best.score.value:.1f}%):", style="bold")
        console.print(f"  {printable(result.best.text)}", style="bold")
    print(result_table(result))
    for line in _findings(result):
        console.print(printable(line), soft_wrap=True)
    if result.model in WEAK_MODEL_NOTES:
        console.print(WEAK_MODEL_NOTES[result.model])
    for sentence in verdict(result):
        console.print(printable(sentence), style="bold")
    pages = ("History", HISTORY_PAGE) if result.best else ("Result", RESULT_PAGE)
    console.print(f"{pages[0]}: {printable(str(folder / pages[1]))}", soft_wrap=True)
    console.print(f"Report: {printable((folder / REPORT_PAGE).absolute().as_uri())}", soft_wrap=True)


def _findings(result: Result) -> list[str]:
    """What a method found beside its accuracy, a line each."""
    if result.ensemble:
        members = result.ensemble.prompts
        return ["Ensemble:", *(f"  {text}" for text in members)] if len(members) > 1 else []
    lines = []
    for figures in result.predictors.values():
        if figures.prompts:
            more = f" and {len(figures.prompts) - 1} more" if len(figures.prompts) > 1 else ""
            lines.append(f"Prompt: {figures.prompts[0]}{more}")
    if "reading" in result.figures:
        lines.append(f"Nearest words: {result.figures['reading']['sentence']}")
    for name in ("energy_gap", "feature_distortion"):
        if name in result.figures:
            lines.append(f"{name.replace('_', ' ')}: {result.figures[name]:.4g}")
    return [*lines, f"Fitted in {result.seconds:.0f} s"]
