"""What a search shows while it runs: the prompts that are tried, on a terminal and in a pipe."""

import io

from rich.console import Console

from ipo.api.watch import Watch
from ipo.prompt import HistoryEntry, Score
from ipo.search.history import History
from ipo.search.record import Record


def entry(number, step, text, accuracy):
    return HistoryEntry(number, step, text, score=Score(accuracy, 1.0, 0.1, 0.9, 0.0, accuracy, 1.0))


def record(tmp_path):
    made = Record("accuracy", tmp_path)
    made.history = History("accuracy")
    made.history.append([entry(0, 0, "a photo of a <CLASS>.", 0.3)])
    made.history.append([entry(1, 1, "a red <CLASS>.", 0.25), entry(2, 1, "a sketch of a <CLASS>.", 0.5)])
    return made


def live_watch():
    watch = Watch(8)
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    watch.bar = type(watch.bar)(console=console)
    watch.task = watch.bar.add_task("", total=8)
    return watch


def test_in_a_pipe_a_step_is_a_line_with_the_best_prompt_that_was_tried(tmp_path, capsys):
    Watch(8)(record(tmp_path))
    line = capsys.readouterr().err
    assert line.startswith("step 1/8  best 50.0%")
    assert "tried: 50.0% a sketch of a <CLASS>." in line
    assert line.count("\n") == 1


def test_on_a_terminal_the_prompts_being_scored_are_shown_and_then_their_accuracy(tmp_path):
    watch = live_watch()
    watch.trying(["a red <CLASS>.", "a sketch of a \x1b[31m<CLASS>."])
    assert watch.bar.below[0].strip(" ?") == "a red <CLASS>."
    assert "\x1b" not in "".join(watch.bar.below)
    watch(record(tmp_path))
    assert [line.split("  ")[1] for line in watch.bar.below] == ["50.0%", "25.0%"]
    watch.trying([f"a <CLASS> {number}." for number in range(20)])
    assert len(watch.bar.below) == 9
    assert watch.bar.below[-1].strip() == "and 12 more"
