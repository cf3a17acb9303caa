"""The text that the LLM is given: the paper's parts in the paper's order, with units, and nothing that is not there."""

from pathlib import Path

import pytest

from ipo.errors import ConfigError
from ipo.llm.base import ReplyForm
from ipo.prompt import HistoryEntry, Score
from ipo.search.meta_prompt import build_messages

CAPTIONS = ["a brown dog\non grass", "a red {{ car }} <|im_end|>"]


def entry(number: int, text: str, accuracy: float, loss: float) -> HistoryEntry:
    return HistoryEntry(number, 0, text, score=Score(accuracy, loss, 0.0, 1.0, 0.0, accuracy, loss))


HISTORY = [entry(0, "a photo of a <CLASS>.", 42 / 51, 1.23456), entry(1, "a drawing of a <CLASS>.", 0.9019607, 0.5)]


def text_of(
    template: str = "ipo.j2",
    history: list[HistoryEntry] = HISTORY,
    captions: list[str] = CAPTIONS,
    form: ReplyForm = "sides",
) -> str:
    (message,) = build_messages(template, history, captions, form)
    assert message.role == "user"
    return message.content


def test_parts_stand_in_the_papers_order() -> None:
    text = text_of()
    parts = [
        "Your task",
        "Image 1: a brown dog on grass",
        "Image 2: ",
        "Below are earlier prompts",
        "a photo of a <CLASS>",
    ]
    parts += ["a drawing of a <CLASS>", "Write one new prompt", "JSON"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_scores_have_range_and_unit_and_the_best_is_last() -> None:
    text = text_of()
    assert "text prompt: a photo of a <CLASS>.\nloss: 1.235\naccuracy: 82.4\n" in text
    assert "text prompt: a drawing of a <CLASS>.\nloss: 0.500\naccuracy: 90.2\n" in text
    assert "from 0 to 100" in text
    assert "0 or more" in text
    assert "the best is the last" in text


@pytest.mark.parametrize("template", ["ipo.j2", "continue.j2"])
def test_nothing_is_said_of_a_history_or_captions_that_are_not_there(template: str) -> None:
    text = text_of(template, [], []).lower()
    for word in ("image 1", "pictures:", "score", "above", "\n\n\n"):
        assert word not in text


def test_no_dataset_is_named() -> None:
    """The reference speaks of flowers whatever the dataset is."""
    assert "flower" not in (text_of() + text_of("continue.j2")).lower()


@pytest.mark.parametrize(
    ("form", "there", "absent"),
    [("sides", '"before"', "<INS>"), ("free", "<INS>", "before"), ("line", "one line", "<INS>")],
)
def test_the_request_fits_the_form_of_the_reply(form: ReplyForm, there: str, absent: str) -> None:
    request = text_of(form=form).partition("Write one new prompt")[2]
    assert there in request
    assert absent not in request


def test_captions_are_text_and_never_template_code() -> None:
    assert "a red {{ car }} <|im_end|>" in text_of()


def test_the_continuation_ends_where_the_model_is_to_go_on() -> None:
    text = text_of("continue.j2", HISTORY, [], "line")
    assert text.endswith("- score 90.2: a drawing of a <CLASS>.\n- score 91.2:")
    assert text_of("continue.j2", [], [], "line").endswith("an old painting of a large <CLASS>.\n-")


def test_the_score_asked_for_never_passes_100() -> None:
    assert text_of("continue.j2", [entry(0, "a <CLASS>.", 0.997, 0.1)], []).endswith("- score 100.0:")


def test_a_long_history_stands_without_the_examples() -> None:
    history = [entry(number, f"a {number} <CLASS>.", number / 100, 1.0) for number in range(5)]
    assert "an old painting" not in text_of("continue.j2", history, [])
    assert "an old painting" in text_of("continue.j2", history[1:], [])


def test_a_template_of_ones_own_is_taken_by_its_path(tmp_path: Path) -> None:
    own = tmp_path / "own.j2"
    own.write_text("{{ history[-1].accuracy }} of {{ history | length }}, {{ form }}")
    assert text_of(str(own)) == "90.2 of 2, sides"
    own.write_text("{{ no_such_thing }}")
    with pytest.raises(ConfigError, match=r"no_such_thing.*It may use: captions"):
        text_of(str(own))


@pytest.mark.parametrize("template", ["missing.j2", "/no/such/file.j2"])
def test_a_missing_template_is_named(template: str) -> None:
    with pytest.raises(ConfigError, match=template):
        text_of(template)
