"""A language model that proposes nothing of use ends the search with a reason, and what it said is shown."""

import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from html import escape
from pathlib import Path

import pytest

from ipo.api import start as command
from ipo.errors import LLMError
from ipo.llm.base import Message, Reply
from ipo.runs.result import read_result
from ipo.search.loop import optimize
from ipo.search.record import Record
from ipo.search.stopping import unusable
from tests.fakes import ScriptedLLM
from tests.test_optimize import SCRIPT, make_search
from tests.test_run import pictures, resume, search, settings, shop

__all__ = ["pictures", "shop"]
BAD = ["I cannot help with that.", "no slot", "a photo of a <CLASS>."]


def test_steps_without_one_proposal_of_use_end_the_search_with_the_reasons() -> None:
    record, llm = Record("accuracy"), ScriptedLLM([BAD] * 3)
    reason = optimize(make_search(llm, give_up=2), record)
    assert record.last_step == len(llm.asked) == 2
    assert reason == "no proposal of the last 2 steps could be used (no prompt: 4, duplicate: 2)"


def test_five_steps_are_enough_by_default() -> None:
    record = Record("accuracy")
    search = make_search(ScriptedLLM([BAD] * 9))
    object.__setattr__(search, "settings", search.settings.model_copy(update={"steps": 9}))
    assert "last 5 steps" in optimize(search, record)
    assert record.last_step == 5


@pytest.mark.parametrize(("script", "give_up"), [([BAD, SCRIPT[0], BAD], 2), ([BAD] * 3, 0), ([BAD] * 3, 4)])
def test_one_proposal_of_use_is_enough_to_go_on_and_giving_up_can_be_switched_off(script, give_up: int) -> None:
    record = Record("accuracy")
    assert optimize(make_search(ScriptedLLM(script), give_up=give_up), record) == "all 3 steps done"


def test_a_resumed_search_gives_up_at_the_same_step(tmp_path: Path) -> None:
    record = Record("accuracy", tmp_path)
    search = make_search(ScriptedLLM([BAD] * 3), give_up=2)
    reason = optimize(search, record)
    assert optimize(search, Record.resume("accuracy", tmp_path, search.settings.first_prompts)) == reason


def test_what_was_said_is_one_example_a_kind_of_the_last_steps_alone() -> None:
    record = Record("accuracy")
    optimize(make_search(ScriptedLLM([BAD] * 3)), record)
    said = unusable(record.history, give_up=2)
    assert said is not None
    assert (said["steps"], said["of"], said["gave_up"]) == (3, 3, True)
    assert [reply["text"] for reply in said["replies"]] == ["no slot", "a photo of a <CLASS>."]
    record = Record("accuracy")
    optimize(make_search(ScriptedLLM([SCRIPT[0], BAD, BAD])), record)
    assert unusable(record.history, give_up=3) is None, "a search that found something and did not give up"
    said = unusable(record.history, give_up=2)
    assert said is not None
    assert said["of"] == 3


class Useless(ScriptedLLM):
    """Says the same whatever it is asked."""

    def __init__(self, text: str) -> None:
        super().__init__([])
        self.text = text

    def generate(
        self,
        messages: Sequence[Message],
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        known: AbstractSet[str] = frozenset(),
        unnamed: Sequence[str] = (),
    ) -> list[Reply]:
        return [Reply(self.text, "sides", "stop", 10, 5, 0.1)] * n


@pytest.fixture
def useless(shop, monkeypatch) -> Useless:
    llm = Useless("I'm sorry,\n<b>no</b> \x1b[31m `JSON` | here.")
    monkeypatch.setattr(shop, "generate", llm.generate)
    return llm


def test_a_search_that_gave_up_is_a_whole_result_that_says_so(useless, pictures, tmp_path, capsys) -> None:
    result = search(settings(pictures, steps=9, give_up=2), tmp_path / "run")
    assert result["stopped"] == "no proposal of the last 2 steps could be used (no prompt: 4)"
    assert result["best"]["text"] == "a photo of a <CLASS>."
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "done"
    parsed = read_result(tmp_path / "run")
    assert parsed.unusable is not None
    assert parsed.unusable.replies[0].text == useless.text
    page, notes = ((tmp_path / "run" / name).read_text() for name in ("report.html", "history.md"))
    assert "No proposal of the last 2 steps could be used" in page
    assert escape("<b>no</b>") in page
    assert "<b>no</b>" not in page
    assert "No proposal of the last 2 steps could be used" in notes
    with pytest.raises(LLMError, match=r"result is that of the first prompts.*--template.*--rejects") as caught:
        command.complain(read_result(tmp_path / "run"), tmp_path / "run")
    assert caught.value.exit_code == 1
    shown = capsys.readouterr().err
    assert "rejected (no prompt" in shown
    assert "I'm sorry," in shown
    assert "\x1b" not in shown
    assert resume(tmp_path / "run")["stopped"] == result["stopped"]


def test_a_short_search_without_a_proposal_of_use_warns(useless, pictures, tmp_path, capsys) -> None:
    search(settings(pictures, steps=1), tmp_path / "run")
    command.complain(read_result(tmp_path / "run"), tmp_path / "run")
    assert "warning: no proposal of the last step could" in capsys.readouterr().err


def test_a_search_that_found_something_says_nothing(shop, pictures, tmp_path, capsys) -> None:
    result = search(settings(pictures), tmp_path / "run")
    assert result["unusable"] is None
    capsys.readouterr()
    command.complain(read_result(tmp_path / "run"), tmp_path / "run")
    assert capsys.readouterr().err == ""
