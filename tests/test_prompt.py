import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipo.errors import PromptError
from ipo.prompt import HistoryEntry, Prompt, Score, text_key


@pytest.mark.parametrize(
    "text", ["a photo", "<CLASS> and <CLASS>", "", "a photo of a <class>.", "a {} <CLASS>", "a\n<CLASS>"]
)
def test_a_text_without_exactly_one_clean_slot_is_no_prompt(text):
    with pytest.raises(PromptError):
        Prompt(text)


def test_filling_replaces_the_slot_and_nothing_else():
    assert Prompt("a photo of a <CLASS>, {x}".replace("{x}", "100%")).fill("{0} %s") == "a photo of a {0} %s, 100%"


@given(st.text(), st.text())
def test_two_sides_always_make_one_prompt_unless_they_bring_a_slot(before, after):
    prompt = Prompt.from_sides(before, after)
    assert prompt.text.count("<CLASS>") == 1


def test_sides_lose_brackets_and_line_breaks():
    assert Prompt.from_sides("a <b>photo\nof {a} ", " .").text == "a b photo of a <CLASS>."


def test_near_identical_prompts_share_a_key():
    keys = {text_key(text) for text in ("A photo of a <CLASS>.", "a  photo of a <CLASS>", " a photo of a <class> .")}
    assert len(keys) == 1


def test_history_entries_survive_json():
    score = Score(0.5, 1.2, 0.4, 0.6, 0.1, 0.7, 0.9)
    for entry in (HistoryEntry(3, 1, "a <CLASS>", 0, score), HistoryEntry(4, 1, "bad", None, None, "no slot")):
        assert HistoryEntry.from_json(entry.to_json()) == entry
