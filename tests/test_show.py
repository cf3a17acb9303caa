"""`ipo show` and `ipo tree` on the run of a scripted search."""

from __future__ import annotations

import csv
import io
import itertools
import json

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from ipo.cli.columns import columns
from ipo.cli.main import app
from ipo.cli.show import changes, read_history
from ipo.errors import ConfigError, RunError
from ipo.report.lineage import lineage
from tests.test_run import pictures, search, settings, shop

__all__ = ["pictures", "shop"]


@pytest.fixture
def run(shop, pictures, tmp_path):
    """Two steps of two proposals, the last of them rejected."""
    search(settings(pictures), tmp_path / "run")
    return tmp_path / "run"


def call(*arguments: object) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_a_step_is_shown_with_its_question_and_what_became_of_each_reply(run):
    shown = call("show", run, 2)
    assert "Step 2: 2 replies in" in shown
    assert "  | text prompt: a drawing of a <CLASS>." in shown
    assert "a very old <CLASS>.  (step 2, id 3)" in shown
    assert "rejected  no slot | here  (no prompt" in shown
    asked = json.loads(call("show", run, 2, "--json"))
    assert [len(ask["answers"]["replies"]) for ask in asked["asks"]] == [2]
    assert [entry["step"] for entry in asked["entries"]] == [2, 2]


def test_the_first_prompts_are_a_step_without_a_question(run):
    shown = call("show", run, 0)
    assert "a photo of a <CLASS>.  (step 0, id 0)" in shown
    assert "|" not in shown


def test_a_step_that_is_none_names_the_last(run):
    with pytest.raises(Exception, match=r"there is no step 9.*The last is 2"):
        call("show", run, 9)


def test_the_tree_goes_from_the_first_prompt_to_the_best_and_marks_the_words(run):
    history = read_history(run).entries
    ids = [entry["id"] for entry in json.loads(call("tree", run, "--id", 3, "--json"))]
    assert ids[0] == 0
    assert ids[-1] == 3
    for parent, child in itertools.pairwise(ids):
        assert history[child].parent == parent
    shown = call("tree", run, "--id", 3).splitlines()
    assert len(shown) == len(ids)
    assert "+" in shown[-1]
    assert call("tree", run)
    with pytest.raises(Exception, match="there is no candidate 99"):
        call("tree", run, "--id", 99)


def test_words_that_came_and_went_are_told_in_their_order():
    assert changes("a photo of a <CLASS>.", "a faded ink drawing of a <CLASS>.") == "  +faded +ink +drawing -photo"
    assert changes("a <CLASS>.", "a <CLASS>") == ""


def test_a_candidate_without_a_parent_is_its_own_tree(run):
    assert [entry.id for entry in lineage(read_history(run).entries, 0)] == [0]


def test_a_folder_of_no_search_is_one_line(tmp_path):
    for command in (("show", tmp_path, 1), ("tree", tmp_path)):
        with pytest.raises(Exception, match=r"no history.jsonl here"):
            call(*command)


@pytest.mark.parametrize(
    "line", ['{"step": 1, "asks": 3}', '{"step": 1}', "[]", '{"step": 1, "replies": 3, "seconds": 1, "messages": []}']
)
def test_a_damaged_log_is_one_line_and_no_part_of_it_is_shown(run, line):
    (run / "replies.jsonl").write_text(line + "\n")
    for more in ((), ("--json",)):
        with pytest.raises(RunError, match=r"replies.jsonl"):
            call("show", run, 1, *more)


def test_a_run_that_has_scored_nothing_yet_says_so(run):
    (run / "history.jsonl").write_text("")
    with pytest.raises(ConfigError, match="not scored a prompt yet"):
        call("show", run, 0)
    with pytest.raises(RunError, match="no prompt of this run has a score"):
        call("tree", run)


def test_the_history_of_several_runs_names_their_strategy_and_is_filtered_and_written_as_csv(run):
    shown = call("history", run, run, "--by", "strategy", "--grep", "DRAWING")
    assert shown.splitlines()[0].split() == ["accuracy,", "%", "95%", "interval", "loss", "step", "strategy", "prompt"]
    assert shown.count("ipo       a drawing of a <CLASS>.") == 2
    assert "a photo of" not in shown
    rows = list(csv.DictReader(io.StringIO(call("history", run, "--csv"))))
    scores = [(entry.text, entry.score.value) for entry in read_history(run) if entry.score is not None]
    assert {(row["text"], float(row["value"])) for row in rows} == {*scores}


def test_a_pattern_that_is_none_is_told(run):
    with pytest.raises(ConfigError, match="no regular expression"):
        call("history", run, "--grep", "(")


def test_columns_fold_the_last_and_keep_to_the_width(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = list(columns(["step", "prompt"], [["3", "word " * 40], ["12", "語" * 50], ["4", " " * 99]], ["prompt"]))
    assert all(cell_len(line) <= 60 for line in lines)
    assert "".join(lines[1:]).count("word") == 40
    assert "".join(lines[1:]).count("語") == 50
