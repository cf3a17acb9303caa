import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipo.captions.base import clean
from ipo.clip.lengths import TextRoom
from ipo.errors import PromptError
from ipo.llm.base import Reply
from ipo.llm.parse import read_prompt
from ipo.prompt import HistoryEntry, Prompt, Score, text_key
from ipo.search.propose import Checks, Reject, accept
from tests.fakes import FakeClip

UNSEEN = [
    "\0",
    "\x1b",
    "\x7f",
    "\x9b",
    "\xad",
    "\u200b",
    "\u200d",
    "\u202e",
    "\u2066",
    "\ufe0f",
    "\ufeff",
    "\U000e0041",
]


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


@pytest.mark.parametrize("odd", UNSEEN)
def test_what_nobody_sees_is_no_part_of_a_prompt_a_key_or_a_caption(odd):
    seen, hidden = "a photo of a <CLASS>.", f"a{odd} pho{odd}to of a <CLASS>{odd}."
    with pytest.raises(PromptError, match="invisible"):
        Prompt(hidden)
    assert text_key(hidden) == text_key(seen)
    assert Prompt.from_sides(f"a pho{odd}to of a ", f"{odd}.").text == seen
    assert clean(f"a pho{odd}to{odd}") == "a photo"
    assert read_prompt(hidden, "line").text == seen
    assert read_prompt(f"<INS>{hidden}</INS>", "free").text == seen
    for ascii_only in (True, False):
        sides = json.dumps({"before": f"a photo of a{odd}", "after": f"{odd}."}, ensure_ascii=ascii_only)
        assert read_prompt(sides, "sides").text == seen


def test_replies_that_differ_in_what_nobody_sees_are_one_proposal():
    checks = Checks(TextRoom.of(FakeClip(), ["cat"]))
    replies = [Reply(f"a photo{odd} of a <CLASS>.", "line", "stop") for odd in ("", *UNSEEN)]
    first, *others = accept(replies, set(), checks)
    assert first == Prompt("a photo of a <CLASS>.")
    assert {other.reason for other in others if isinstance(other, Reject)} == {"duplicate"}
    assert len(others) == len(UNSEEN)


def test_what_is_seen_stays():
    assert (
        Prompt.from_sides("une photo d\u2019un\u00a0été, 写真 ", " \U0001f600.").text
        == "une photo d\u2019un été, 写真 <CLASS> \U0001f600."
    )


def test_history_entries_survive_json():
    score = Score(0.5, 1.2, 0.4, 0.6, 0.1, 0.7, 0.9)
    for entry in (HistoryEntry(3, 1, "a <CLASS>", 0, score), HistoryEntry(4, 1, "bad", None, None, "no slot")):
        assert HistoryEntry.from_json(entry.to_json()) == entry


@pytest.mark.parametrize(
    "text", ["a &amp; <CLASS>", "a <CLASS>&lt;", "a &copy <CLASS>", "&#x41; <CLASS>", "a &nbsp;<CLASS>"]
)
def test_a_prompt_holds_no_entity_since_tokenizers_read_what_it_stands_for(text):
    with pytest.raises(PromptError, match="HTML"):
        Prompt(text)


def test_sides_are_read_as_what_their_entities_stand_for():
    assert (
        Prompt.from_sides("black &amp;amp; white &lt;b&gt; photo of a ", "&#46;").text
        == "black & white b photo of a <CLASS>."
    )
    assert Prompt.from_sides("a&#8203; photo&nbsp;of ", "").text == "a photo of <CLASS>"


@pytest.mark.parametrize("odd", ["\ud800", "\x85", "\u2028", "\r", "\t", "\x1c", "\x00", "\x1b[31m"])
def test_nothing_that_breaks_a_line_a_terminal_or_a_file_is_in_a_prompt(odd):
    for text in (f"a{odd} <CLASS>", f"a <CLASS>{odd}", f"{odd}a <CLASS>"):
        with pytest.raises(PromptError):
            Prompt(text)
