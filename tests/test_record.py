from pathlib import Path

import pytest

from ipo.errors import RunError
from ipo.llm.base import Message, Reply
from ipo.prompt import HistoryEntry, Score
from ipo.search.history import History
from ipo.search.record import Record
from ipo.store.files import append_rows, read_rows

FIRST = ("prompt 0 <CLASS>",)
STEP_3 = {"step": 3, "seconds": 1}


def entry(index: int, step: int, accuracy: float | None, loss: float = 1.0) -> HistoryEntry:
    if accuracy is None:
        return HistoryEntry(index, step, f"reject {index}", 0, reason="no slot")
    return HistoryEntry(
        index, step, f"prompt {index} <CLASS>", 0 if index else None, Score(accuracy, loss, 0, 1, 0.5 - loss, 0.5, 1.0)
    )


def filled(folder) -> Record:
    """Two whole steps of two candidates each."""
    record = Record("accuracy", folder)
    record.history.append([entry(0, 0, 0.5)])
    for step in (1, 2):
        replies = [Reply(f"reply {step}", "line", "stop", 10, 5, 0.5)] * 2
        record.log_replies(step, 0, [Message("user", f"ask {step}")], replies, 1.5)
        record.history.append([entry(2 * step - 1, step, 0.5 + step / 10), entry(2 * step, step, None)])
    return record


def test_top_is_best_last_by_accuracy_then_loss():
    history = History("accuracy")
    history.append([entry(0, 0, 0.5, 1.0), entry(1, 1, 0.7, 2.0), entry(2, 1, 0.7, 1.5), entry(3, 1, None)])
    assert [e.id for e in history.top(2)] == [1, 2]
    assert history.best().id == 2
    assert history.top(0) == []


@pytest.mark.parametrize(
    ("count", "shown"), [(0, []), (1, [0]), (2, [0, 2]), (3, [0, 1, 2]), (4, [0, 3, 1, 2]), (5, [0, 3, 1, 2])]
)
def test_first_prompts_that_are_kept_count_among_those_shown_and_stand_at_their_rank(count, shown):
    history = History("accuracy")
    history.append(
        [entry(0, 0, 0.5), entry(1, 1, 0.7, 2.0), entry(2, 1, 0.7, 1.5), entry(3, 1, 0.6), entry(4, 1, None)]
    )
    assert [e.id for e in history.top(count, keep_first=True)] == shown
    assert [e.id for e in history.top(2)] == [1, 2]


def test_of_equal_scores_the_earlier_is_the_better():
    history = History("accuracy")
    history.append([entry(0, 0, 0.5), entry(1, 1, 0.5)])
    assert history.best().id == 0


@pytest.mark.parametrize(("rule", "winner"), [("accuracy", 1), ("loss", 0), ("margin", 0)])
def test_rules_rank_by_their_own_score(rule, winner):
    history = History(rule)
    history.append([entry(0, 0, 0.5, 1.0), entry(1, 1, 0.7, 2.0)])
    assert history.best().id == winner


def test_usage_counts_every_reply(tmp_path):
    usage = filled(tmp_path).usage()
    assert (usage.steps, usage.proposals, usage.prompt_tokens, usage.completion_tokens) == (2, 4, 40, 20)
    assert usage.tokens == 60
    assert usage.seconds == 3.0


def test_what_was_asked_and_answered_is_kept_in_full(tmp_path):
    filled(tmp_path)
    row = read_rows(tmp_path / "replies.jsonl")[0]
    assert row["messages"] == [{"role": "user", "content": "ask 1"}]
    assert row["replies"][0]["text"] == "reply 1"
    assert row["step"] == 1


def test_resuming_a_whole_record_changes_nothing(tmp_path):
    record = filled(tmp_path)
    before = (tmp_path / "history.jsonl").read_bytes()
    again = Record.resume("accuracy", tmp_path, FIRST)
    assert again.history.entries == record.history.entries
    assert again.last_step == 2
    assert (tmp_path / "history.jsonl").read_bytes() == before


@pytest.mark.parametrize("cut", [1, 30, 100])
def test_a_torn_step_is_dropped_but_its_replies_are_kept(tmp_path, cut):
    filled(tmp_path)
    path = tmp_path / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    again = Record.resume("accuracy", tmp_path, FIRST)
    assert again.last_step == 1
    assert [e.step for e in again.history] == [0, 1, 1]
    assert len(path.read_text().splitlines()) == 3
    assert (again.replies(2, 0) or [])[0].text == "reply 2"


def cut_lines(path, keep):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:keep]))


def test_a_torn_reply_log_is_cut_back_to_whole_steps(tmp_path):
    filled(tmp_path)
    path = tmp_path / "replies.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    cut_lines(tmp_path / "history.jsonl", 3)
    again = Record.resume("accuracy", tmp_path, FIRST)
    assert again.last_step == 1
    assert again.replies(2, 0) is None


def test_a_reply_log_with_a_gap_is_an_error(tmp_path):
    filled(tmp_path)
    path = tmp_path / "replies.jsonl"
    path.write_text(path.read_text().splitlines()[1] + "\n")
    with pytest.raises(RunError, match="misses steps"):
        Record.resume("accuracy", tmp_path, FIRST)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def add_line(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text()}{line}\n")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: (run / "replies.jsonl").unlink(), "does not fit the reply log"),
        (lambda run: cut_lines(run / "replies.jsonl", 1), "does not fit the reply log"),
        (lambda run: (run / "replies.jsonl").write_bytes((run / "replies.jsonl").read_bytes()[:-5]), "does not fit"),
        (lambda run: append_rows(run / "history.jsonl", [entry(5, 2, 0.5).to_json()]), "does not fit"),
        (lambda run: add_line(run / "history.jsonl", "[1, 2]"), r"history\.jsonl:6"),
        (lambda run: append_rows(run / "history.jsonl", [{"id": 5, "step": "2", "text": "x"}]), r"history\.jsonl:6"),
        (lambda run: append_rows(run / "history.jsonl", [{"id": 5, "prompt": "x"}]), r"prompt.*history\.jsonl:6"),
        (
            lambda run: append_rows(run / "replies.jsonl", [{"replies": []}]),
            r"'step': field required.*replies\.jsonl:3",
        ),
        (
            lambda run: append_rows(run / "replies.jsonl", [STEP_3 | {"replies": [{"a": 1}]}]),
            r"replies\.0\.text.*replies\.jsonl:3",
        ),
        (lambda run: append_rows(run / "replies.jsonl", [STEP_3 | {"replies": None}]), r"replies\.jsonl:3"),
    ],
)
def test_damage_is_an_error_and_nothing_is_cut(tmp_path, damage, words):
    filled(tmp_path)
    damage(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(RunError, match=words):
        Record.resume("accuracy", tmp_path, FIRST)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("first", [("another <CLASS>",), (*FIRST, "another <CLASS>"), ()])
def test_other_first_prompts_than_those_of_the_settings_are_an_error(tmp_path, first):
    filled(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(RunError, match=r"history.*(settings|does not fit)"):
        Record.resume("accuracy", tmp_path, first)
    assert contents(tmp_path) == before


def test_a_run_killed_before_its_first_answer_begins_anew(tmp_path):
    record = Record.resume("accuracy", tmp_path, FIRST)
    assert record.last_step == -1
    record.history.append([entry(0, 0, 0.5)])
    assert Record.resume("accuracy", tmp_path, FIRST).last_step == 0
    assert Record.resume("accuracy", tmp_path, (*FIRST, "another <CLASS>")).last_step == -1


def test_a_history_of_another_shape_is_an_error(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"id": 1, "prompt": "x"}\n')
    with pytest.raises(RunError, match=r"damaged.*prompt.*history\.jsonl:1"):
        History.read("accuracy", tmp_path / "history.jsonl")
