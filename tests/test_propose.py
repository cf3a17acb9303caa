"""From replies to candidates: every reply gets a prompt or a reason, and nothing unfit gets through."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from ipo.clip.lengths import TextRoom
from ipo.config import SearchSettings
from ipo.llm.base import Reply, ReplyForm
from ipo.prompt import Prompt
from ipo.search.propose import Checks, Reject, accept, parse_reply
from tests.fakes import FakeClip, ScriptedLLM


def reply(text: str, form: ReplyForm = "line", reason: str = "stop", error: str | None = None) -> Reply:
    return Reply(text, form, reason, error=error)


def checks(**changes: Any) -> Checks:
    return replace(Checks(TextRoom.of(FakeClip(), ["sea lion"])), **changes)


def kinds(verdicts: Sequence[Prompt | Reject]) -> list[str]:
    return [verdict.kind if isinstance(verdict, Reject) else "accepted" for verdict in verdicts]


MALFORMED = [
    (reply("", error="HTTP 500"), "no reply: HTTP 500"),
    (reply("  \n"), "no reply: empty"),
    (reply("a photo of a <CLASS> in the", reason="length"), "cut off: length"),
    (reply('{"before": "a", "after": "."}', "sides", "length"), "cut off: length"),
    (reply("a photo of a cat."), "no prompt: a prompt needs <CLASS> exactly once"),
    (reply("a <CLASS> and a <CLASS>."), "no prompt: a prompt needs <CLASS> exactly once"),
    (reply("<INS>a photo of a cat.</INS>", "free"), "no prompt: a prompt needs <CLASS> exactly once"),
    (reply("{}", "sides"), "no prompt: no texts `before` and `after`"),
    (reply('["a", "b"]', "sides"), "no prompt: no JSON object"),
]


@pytest.mark.parametrize(("answer", "reason"), MALFORMED)
def test_a_malformed_reply_is_a_reject_with_its_reason_and_its_text(answer: Reply, reason: str) -> None:
    verdict = parse_reply(answer)
    assert isinstance(verdict, Reject)
    assert verdict.reason == reason
    assert verdict.text == answer.text


def test_missing_tags_do_not_make_the_whole_reply_a_prompt() -> None:
    """The reference adopts the entire reply where the tags are missing."""
    verdict = parse_reply(reply("Sure! Here is a prompt: a photo of a <CLASS>. It is concise.", "free"))
    assert isinstance(verdict, Reject)


def test_a_prompt_without_placeholder_is_never_accepted() -> None:
    """The reference never looks whether <CLASS> is there, and then all classes get the same text."""
    assert (
        kinds(accept([reply("<INS>a good photo.</INS>", "free"), reply("a photo.")], set(), checks()))
        == ["no prompt"] * 2
    )


def test_over_long_text_is_rejected_with_the_longest_class_name() -> None:
    """The reference scores an over-long text as a row of zeros."""
    clip = FakeClip()
    clip.context_length = 10
    room = TextRoom.of(clip, ["cat", "great white shark"])
    fitted = Checks.of(SearchSettings(), room, ["cat", "great white shark"], ScriptedLLM([]))
    fits, long = accept([reply("a photo of a <CLASS>."), reply("a photo of a very big <CLASS>.")], set(), fitted)
    assert isinstance(fits, Prompt)
    assert clip.token_count(fits.fill("great white shark")) == 9
    assert isinstance(long, Reject)
    assert long.reason == "too long: 11 tokens with 'great white shark', and CLIP reads 10"


def test_duplicates_of_the_run_and_of_the_step_are_rejected_even_if_nearly_identical() -> None:
    seen = {Prompt("a photo of a <CLASS>.").key()}
    texts = ["A photo of  a <CLASS>", "a drawing of a <CLASS>.", "a drawing of a <CLASS>", "a sketch of a <CLASS>."]
    verdicts = accept([reply(text) for text in texts], seen, checks())
    assert kinds(verdicts) == ["duplicate", "accepted", "duplicate", "accepted"]
    assert seen == {Prompt("a photo of a <CLASS>.").key()}, "the caller's set stays as it was"


def test_words_that_are_not_english_or_unfit_are_named() -> None:
    texts = ["a photo of a thyers <CLASS>.", "a murdered <CLASS>.", "une photo avec <CLASS>.", "a <CLASS> in colour."]
    verdicts = accept([reply(text) for text in texts], set(), checks())
    assert [getattr(verdict, "reason", None) for verdict in verdicts] == [
        "not English: thyers",
        "unfit: murdered",
        "not English: une, avec",
        None,
    ]
    assert kinds(accept([reply(texts[0])], set(), checks(english_only=False))) == ["accepted"]


def test_unlikely_prompts_are_rejected_by_one_call_over_those_that_pass_the_rest() -> None:
    asked: list[list[str]] = []

    def likelihood(texts: Sequence[str]) -> list[float]:
        asked.append(list(texts))
        return [-1.0 if "photo" in text else -3.0 for text in texts]

    texts = ["a photo of a <CLASS>.", "no slot.", "a <CLASS> of a."]
    verdicts = accept([reply(text) for text in texts], set(), checks(min_likelihood=-2.0, likelihood=likelihood))
    assert kinds(verdicts) == ["accepted", "no prompt", "unlikely"]
    assert isinstance(verdicts[2], Reject)
    assert verdicts[2].reason == "unlikely: -3.00 nats a token, the bound is -2.0"
    assert asked == [[texts[0], texts[2]]]


class JudgingLLM(ScriptedLLM):
    min_likelihood = -2.5

    def mean_log_likelihood(self, texts: Sequence[str], context: str = "") -> list[float]:
        assert context
        return [-2.4 for _ in texts]


@pytest.mark.parametrize(("setting", "kind"), [(None, "accepted"), (-2.0, "unlikely")])
def test_the_likelihood_bound_is_the_presets_unless_the_settings_say_otherwise(
    setting: float | None, kind: str
) -> None:
    settings = SearchSettings(min_likelihood=setting)
    fitted = Checks.of(settings, TextRoom.of(FakeClip(), ["cat"]), ["cat"], JudgingLLM([]))
    assert kinds(accept([reply("a photo of a <CLASS>.")], set(), fitted)) == [kind]


def test_an_llm_that_cannot_tell_likelihoods_is_not_asked_for_them() -> None:
    room = TextRoom.of(FakeClip(), ["cat"])
    fitted = Checks.of(SearchSettings(min_likelihood=-0.1), room, ["cat"], ScriptedLLM([]))
    assert kinds(accept([reply("a photo of a <CLASS>.")], set(), fitted)) == ["accepted"]


def test_there_is_one_verdict_a_reply_in_order() -> None:
    replies = [reply("x"), reply("a <CLASS> outdoors."), reply("", error="late"), reply("a <CLASS> indoors.")]
    assert kinds(accept(replies, set(), checks())) == ["no prompt", "accepted", "no reply", "accepted"]


ODD = [
    ("<CLASS>", "no prompt: no words around the class slot"),
    ("<CLASS>.", "no prompt: no words around the class slot"),
    ("... - <CLASS> !!!", "no prompt: no words around the class slot"),
    ("24 views of a <CLASS>", None),
    ("a photo of a [CLASS], a <CLASS>.", "no prompt: another placeholder, [CLASS]"),
    ("a photo of a [class name] <CLASS>.", "no prompt: another placeholder, [class name]"),
    ("a photo of CLASS, a <CLASS>.", "no prompt: another placeholder, CLASS"),
    ("a photo of CLASS_NAME, a <CLASS>.", "no prompt: another placeholder, CLASS_NAME"),
    ("a photo of %s, a <CLASS>.", "no prompt: another placeholder, %s"),
    ("a photo of $name, a <CLASS>.", "no prompt: another placeholder, $name"),
    ("a photo of a {} <CLASS>.", "no prompt: a prompt holds no angle brackets, braces, line breaks"),
    ("a photo of a <class> <CLASS>.", "no prompt: a prompt holds no angle brackets"),
    ("a photo of a <CLASS> and a <CLASS>.", "no prompt: a prompt needs <CLASS> exactly once"),
    ("a photo of <CLASS>s.", "no prompt: letters joined to the class slot"),
    ("a photo of an un<CLASS> scene.", "no prompt: letters joined to the class slot"),
    ("a photo of a <CLASS>like thing.", "no prompt: letters joined to the class slot"),
    ("a photo of the <CLASS>'s head.", None),
    ("a photo of the <CLASS>’s head.", None),
    ("a photo of the <CLASS>'x head.", "not English: x"),
    ("a photo of a <CLASS>-shaped thing.", None),
    ("a photo of a first-class <CLASS>.", None),
    ("a very " * 90 + "old <CLASS>.", "too long: 642 characters, at most 500"),
    ("a photo of a <CLASS> &amp; more.", "no prompt: a prompt holds no HTML entities"),
    ("a photo of a <CLASS> &#38; more.", "no prompt: a prompt holds no HTML entities"),
    ("a photo of a <CLASS> & more.", None),
    ("a photo of a <CLASS> 😀.", "unfit: 😀"),
    ("a #photo of a *<CLASS>*.", "unfit: #, *"),
    ("a photo | of a `<CLASS>`.", "unfit: |, `"),
    ("a фото of a <CLASS>.", "not English: фото"),
    ("a pho\u0301to of a <CLASS>.", "unfit: \u0301"),
    ("一张<CLASS>的照片。", "unfit: 。"),
    ("a ｐｈｏｔｏ of a <CLASS>.", "not English: ｐｈｏｔｏ"),
    ("a photo of a <CLASS>\ue000.", "unfit: \ue000"),
    ("a black & white photo (1/2) of “the” <CLASS> – 100% real; a close-up!", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "reason"), ODD)
def test_what_is_accepted_is_a_sentence_around_one_class_name(text: str, reason: str | None) -> None:
    clip = FakeClip()
    clip.context_length = 10_000
    (verdict,) = accept([reply(text)], set(), checks(room=TextRoom.of(clip, ["cat"])))
    if reason is None:
        assert isinstance(verdict, Prompt), verdict
        assert verdict.text == text
    else:
        assert isinstance(verdict, Reject)
        assert verdict.reason.startswith(reason)
        assert verdict.text == text


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('"a photo of a <CLASS>."', "a photo of a <CLASS>."),
        ("'a photo of a <CLASS>.'", "a photo of a <CLASS>."),
        ("“a photo of a <CLASS>.”", "a photo of a <CLASS>."),
        ('" a photo of a <CLASS>. "', "a photo of a <CLASS>."),
        ('"the" <CLASS>, "it"', '"the" <CLASS>, "it"'),
        ("a 'photo' of a <CLASS>.", "a 'photo' of a <CLASS>."),
    ],
)
def test_quotation_marks_around_the_whole_are_no_part_of_a_prompt(written: str, read: str) -> None:
    sides = written.partition("<CLASS>")
    for answer in (
        reply(written),
        reply(f"<INS>{written}</INS>", "free"),
        reply(json.dumps({"before": sides[0], "after": sides[2]}), "sides"),
    ):
        assert getattr(parse_reply(answer), "text", None) == read


def test_shape_and_length_count_whatever_the_language() -> None:
    loose = checks(english_only=False)
    texts = [
        "一张<CLASS>的照片。",
        "a <CLASS>s",
        "a [CLASS] <CLASS>",
        "!<CLASS>!",
        "a " * 300 + "<CLASS>",
        "une <CLASS> 😀",
    ]
    verdicts = accept([reply(text) for text in texts], set(), loose)
    assert kinds(verdicts) == ["accepted", "no prompt", "no prompt", "no prompt", "too long", "accepted"]


def test_a_prompt_that_names_a_class_of_the_fit_is_rejected_unless_that_is_allowed() -> None:
    names, llm = ("butterfly", "sea lion", "photo", "red thing"), ScriptedLLM([])
    room = TextRoom.of(FakeClip(), names, ["starfish"])
    texts = [
        "a photo of a butterfly with a large <CLASS>.",
        "Butterflies around a <CLASS>.",
        "a <CLASS> near sea-lions.",
        "a photo of a sea <CLASS> lion.",
        "a starfish and a <CLASS>.",
        "photos of a <CLASS>.",
    ]
    verdicts = accept([reply(text) for text in texts], set(), Checks.of(SearchSettings(), room, names, llm))
    assert [getattr(verdict, "reason", None) for verdict in verdicts] == [
        "names a class: butterfly",
        "names a class: butterfly",
        "names a class: sea lion",
        None,  # the parts stand on two sides of the slot
        None,  # a new class, which a search must not know
        None,  # the first prompt is a photo
    ]
    allowed = SearchSettings(class_names_allowed=True)
    assert (
        kinds(accept([reply(text) for text in texts], set(), Checks.of(allowed, room, names, llm))) == ["accepted"] * 6
    )
    drawn = SearchSettings(first_prompts=("a drawing of a <CLASS>.", "a butterfly <CLASS>."))
    verdicts = accept([reply(text) for text in texts], set(), Checks.of(drawn, room, names, llm))
    assert [getattr(verdict, "reason", "") for verdict in verdicts[:2] + verdicts[5:]] == [
        "names a class: photo",
        "",
        "names a class: photo",
    ]


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_a_likelihood_that_is_no_number_is_not_above_the_bound(value: float) -> None:
    judged = checks(min_likelihood=-2.0, likelihood=lambda texts: [value for _ in texts])
    (verdict,) = accept([reply("a photo of a <CLASS>.")], set(), judged)
    assert isinstance(verdict, Reject)
    assert verdict.kind == "unlikely"


def test_no_likelihood_is_asked_for_where_nothing_is_left() -> None:
    judged = checks(min_likelihood=-2.0, likelihood=lambda texts: pytest.fail("asked for nothing"))
    assert kinds(accept([reply("no slot.")], set(), judged)) == ["no prompt"]
