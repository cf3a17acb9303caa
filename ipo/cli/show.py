"""`ipo show` and `ipo tree`: one step of a search as it happened, and how a prompt came from others."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ipo.cli import options
from ipo.cli.console import output, print_json
from ipo.errors import ConfigError, RunError
from ipo.screen import counted, printable

if TYPE_CHECKING:
    from ipo.prompt import HistoryEntry
    from ipo.search.history import History
    from ipo.search.replies import Question

RunArgument = Annotated[Path, typer.Argument(help="Run folder of a search.")]


def show(
    run: RunArgument,
    step: Annotated[int, typer.Argument(min=0, help="The step; 0 is that of the first prompts.")],
    as_json: options.AsJson = False,
) -> None:
    """Show one step of a search: what was asked, what came back, and what became of each reply.

    Examples:

      ipo show runs/caltech101-local-llama-16shot-seed1 3

      ipo show RUN 3 --json | jq -r '.asks[].answers.replies[].text'
    """
    history = read_history(run)
    entries = [entry for entry in history if entry.step == step]
    if not entries:
        remedy = f"The last is {history.entries[-1].step}" if len(history) else "The run has not scored a prompt yet"
        raise ConfigError(f"there is no step {step}", where=str(run), remedy=remedy)
    asks = read_asks(run, step)
    if as_json:
        told = [asdict(ask) for ask in asks]
        print_json({"step": step, "asks": told, "entries": [entry.to_json() for entry in entries]})
        return
    console, rest = output(), list(entries)
    for place, ask in enumerate(asks, start=1):
        replies, seconds = ask.answers.replies, ask.answers.seconds
        many = f"question {place} of {len(asks)}, " if len(asks) > 1 else ""
        console.print(f"Step {step}: {many}{counted(len(replies), 'reply')} in {seconds:.1f} s", style="bold")
        for message in ask.messages:
            for line in message.content.split("\n"):
                console.print(f"  | {printable(line)}", soft_wrap=True)
        for entry in rest[: len(replies)]:
            console.print(outcome(entry), soft_wrap=True)
        rest = rest[len(replies) :]
    for entry in rest:
        console.print(outcome(entry), soft_wrap=True)


def tree(
    run: RunArgument,
    entry: Annotated[
        int | None, typer.Option("--id", min=0, help="The candidate, as `ipo history --json` numbers them.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show how a prompt came to be: the prompts that it descends from, and theirs, up to the first ones.

    The best prompt, if no other is named. What a line adds to the words of the line that it comes from is marked
    with +, what it leaves out with -.

    Examples:

      ipo tree runs/caltech101-local-llama-16shot-seed1

      ipo tree RUN --id 17
    """
    from ipo.report.lineage import lineage

    history = read_history(run)
    if entry is not None and entry >= len(history):
        raise ConfigError(f"there is no candidate {entry}", where=str(run), remedy=f"The last is {len(history) - 1}")
    found = lineage(history.entries, history.best().id if entry is None else entry)
    if as_json:
        print_json([one.to_json() for one in found])
        return
    console = output()
    for depth, one in enumerate(found):
        before = found[depth - 1].text if depth else ""
        console.print(f"{'  ' * depth}{outcome(one)}{changes(before, one.text) if depth else ''}", soft_wrap=True)


def read_history(run: Path) -> History:
    """The history of a search. Raises `RunError` where there is none."""
    from ipo.runs.folder import read_settings
    from ipo.search.history import History
    from ipo.search.record import HISTORY_FILE

    if not (run / HISTORY_FILE).exists():
        raise RunError(f"no {HISTORY_FILE} here", where=str(run), remedy="Give the folder of an `ipo optimize` run")
    return History.read(read_settings(run).search.select, run / HISTORY_FILE)


def read_asks(run: Path, step: int) -> list[Question]:
    """The questions of a step with their replies, as the log has them. Raises `RunError` where it is damaged."""
    from ipo.search.record import REPLIES_FILE
    from ipo.search.replies import Question
    from ipo.store.files import parse_rows

    return [asked for asked in parse_rows(run / REPLIES_FILE, Question.from_json) if asked.answers.step == step]


def outcome(entry: HistoryEntry) -> str:
    """One candidate in a line: its figures, or why it has none."""
    text = printable(" ".join(entry.text.split()))
    if entry.score is None:
        return f"  rejected  {text}  ({printable(entry.reason or '')})"
    return f"  {100 * entry.score.value:6.2f}%  {text}  (step {entry.step}, id {entry.id})"


def changes(before: str, after: str) -> str:
    """`  +ink -photo`: the words that one text has and the other has not, in their order."""
    from ipo.report.lineage import word_changes

    told = [(kind, word) for kind, part in word_changes(before, after) for word in part.split() if word != "."]
    more = [f"+{printable(word)}" for kind, word in told if kind == "added"]
    less = [f"-{printable(word)}" for kind, word in told if kind == "left out"]
    return "  " + " ".join([*more, *less]) if more or less else ""
