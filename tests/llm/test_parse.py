"""What counts as a prompt in a reply, form by form; everything else is an error."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipo.errors import PromptError
from ipo.llm.base import ReplyForm
from ipo.llm.parse import read_prompt

GOOD = [
    ("line", "a photo of a <CLASS>.", "a photo of a <CLASS>."),
    ("line", "  a photo\n of a <CLASS>. ", "a photo of a <CLASS>."),
    ("free", "Sure.\n<INS>a photo of a <CLASS>.</INS>", "a photo of a <CLASS>."),
    ("free", "<INS>\na photo of\na <CLASS>.\n</INS>", "a photo of a <CLASS>."),
    ("free", "<think><INS>x</INS> or</think><INS>a <CLASS>.</INS>", "a <CLASS>."),
    ("sides", '{"before": "a photo of a", "after": "."}', "a photo of a <CLASS>."),
    ("sides", '{"before": "a photo of a ", "after": " in the dark."}', "a photo of a <CLASS> in the dark."),
    ("sides", '{"before": "the", "after": "\'s face."}', "the <CLASS>'s face."),
    ("sides", '{"before": "a photo of a <CLASS>", "after": "."}', "a photo of a <CLASS>."),
    ("sides", '{"before": "a photo of a ", "after": "<CLASS> in red."}', "a photo of a <CLASS> in red."),
    ("sides", '{"before": "", "after": "seen from above."}', "<CLASS> seen from above."),
    *(
        ("sides", f'{{"before": "a photo of a {slot}", "after": "."}}', "a photo of a <CLASS>.")
        for slot in ("<class>", "{CLASS}", "{class}", "< Class >", "{{class_name}}", "&lt;class&gt;", "<label>", "{}")
    ),
    ("sides", '{"before": "a photo of a", "after": "<class>."}', "a photo of a <CLASS>."),
    ("sides", '{"before": "a {red}\\n<b>", "after": "."}', "a red b <CLASS>."),
    ("sides", 'Here:\n```json\n{"before": "a", "after": "."}\n```\nDone.', "a <CLASS>."),
    ("sides", '{"before": "a", "after": "."} again: {"before": "a", "after": "."}', "a <CLASS>."),
    ("sides", '<think>{maybe}</think>{"before": "a", "after": ".", "why": "x"}', "a <CLASS>."),
]

BAD = [
    ("line", "a photo of a cat.", "exactly once"),
    ("line", "a <CLASS> and a <CLASS>.", "exactly once"),
    ("line", "a <b><CLASS></b>.", "angle brackets"),
    ("free", "A photo of a <CLASS>.", "0 texts"),
    ("free", "<INS>a photo of a <CLASS>.", "0 texts"),
    ("free", "<INS>a photo of a cat.</INS>", "exactly once"),
    ("free", "1. <INS>a <CLASS>.</INS> 2. <INS>the <CLASS>.</INS>", "2 texts"),
    ("sides", "A photo of a <CLASS>.", "no JSON object"),
    ("sides", "Sure! I would use this prompt: a photo of a <CLASS>. It works well.", "no JSON object"),
    ("sides", "{}", "no texts"),
    ("sides", "[]", "no JSON object"),
    ("sides", '["a", "."]', "no JSON object"),
    ("sides", '{"before": "a photo', "no JSON object"),
    ("sides", '{"before": "a"}', "no texts"),
    ("sides", '{"before": "a", "after": null}', "no texts"),
    ("sides", '{"before": ["a"], "after": "."}', "no texts"),
    ("sides", '{"before": "a", "after": "."} {"before": "the", "after": "."}', "2 proposals"),
    ("sides", '{"before": "", "after": "."}', "no words"),
    ("sides", '{"before": "a <CLASS> or <CLASS>", "after": "."}', "more than one"),
    ("sides", '{"before": "a <class> or a", "after": "."}', "more than one"),
    ("sides", '{"before": "a photo of a {classname}.", "after": ""}', "more than one"),
]


@pytest.mark.parametrize(("form", "text", "prompt"), GOOD)
def test_prompts_are_read(form: ReplyForm, text: str, prompt: str) -> None:
    assert read_prompt(text, form).text == prompt


@pytest.mark.parametrize(("form", "text", "reason"), BAD)
def test_what_is_not_in_the_form_is_an_error(form: ReplyForm, text: str, reason: str) -> None:
    with pytest.raises(PromptError, match=reason):
        read_prompt(text, form)


@given(
    st.from_regex(r"[a-z]{1,9}( [a-z]{1,9}){0,5}", fullmatch=True), st.from_regex(r"[ a-z,]{0,30}\.", fullmatch=True)
)
def test_two_sides_are_always_one_prompt_with_one_slot(before: str, after: str) -> None:
    prompt = read_prompt(json.dumps({"before": before, "after": after}), "sides")
    assert prompt.text.startswith(f"{before} <CLASS>")
    assert prompt.text.count("<CLASS>") == 1
    assert "".join(prompt.after.split()) == "".join(after.split())


@given(st.text())
def test_no_text_whatever_breaks_the_reader(text: str) -> None:
    for form in ("line", "sides", "free"):
        with suppress(PromptError):
            assert read_prompt(text, form).text.count("<CLASS>") == 1


def test_texts_that_json_can_carry_and_files_cannot() -> None:
    prompt = read_prompt('{"before": "a \\ud800 photo of", "after": "."}', "sides")
    assert prompt.text.encode() == b"a ? photo of <CLASS>."
    with pytest.raises(PromptError):
        read_prompt('{"before": ' * 100_000, "sides")
