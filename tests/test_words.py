"""The word checks: what picture descriptions need is known, what nobody wants to read is not let through."""

from __future__ import annotations

import pytest
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

from ipo.errors import ConfigError
from ipo.search import words
from ipo.search.words import unfit_words, unknown_words

PUBLISHED = """
Take a high-quality photo of a. Categorize the shown in the image. Take an awe-inspiring photograph of that beautifully
captures its essence with exceptional clarity, vibrant colors, impeccable composition, and mesmerizing details. Take a
well-composed photo of a with optimal lighting, focus, and minimal distractions. Capture the pet's unique
characteristics, including expression and posture, to ensure a clear and distinct image. Describe the distinguishing
characteristics. Identify the primary ingredient in the and describe its texture, color, and presentation. Analyze the
vehicles in the satellite image with state-of-the-art algorithms for precise classification and optimal efficiency.
Capture a high-quality, well-lit image of a person flawlessly demonstrating the action with impeccable visual
representation.
"""
"""Of the best prompts that the IPO paper prints (arXiv 2410.15397), those with the rarest words."""


def test_published_prompts_and_the_80_templates_pass() -> None:
    texts = [PUBLISHED, *(template("") for template in OPENAI_IMAGENET_TEMPLATES)]
    assert [words for text in texts if (words := unknown_words(text) + unfit_words(text))] == []


@pytest.mark.parametrize("word", ["thyers", "aoui", "inlefthandlage", "mangoiennaiaiw", "que", "der", "x", "été"])
def test_words_that_are_not_english(word: str) -> None:
    assert unknown_words(f"a photo of {word} on a hill") == [word]


@pytest.mark.parametrize(
    "word", ["Watercolour", "well-lit", "pet's", "boxes", "stopped", "loveliest", "hat", "die", "fur"]
)
def test_words_that_are_english(word: str) -> None:
    assert unknown_words(f"a {word}") == []


@pytest.mark.parametrize("word", ["murder", "Murdered", "killing", "naked", "corpses", "porn", "bombed"])
def test_unfit_words_in_any_regular_form(word: str) -> None:
    assert unfit_words(f"a {word} in the street") == [word.lower()]


def test_harmless_words_that_begin_like_unfit_ones() -> None:
    assert (
        unfit_words("classic glass, a cocktail, a close-up shot, spiced, lustre, titled, assembled, skilled, diet")
        == []
    )


@pytest.mark.parametrize("content", ["", "# nothing\n\n", None, "caf\xe9"])
def test_a_word_list_that_is_empty_or_missing_is_an_error_since_all_would_pass(tmp_path, content):
    if content is not None:
        (tmp_path / "unfit.txt").write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match="word list"):
        words.read_list("unfit.txt", tmp_path)


def test_odd_signs_are_neither_letters_nor_those_of_a_sentence():
    text = "a photo: 50% of \u201cit\u201d (1/2) - one's & more; \u2026 cafe\u0301 \u00b2 # \u00e9"
    assert words.odd_signs(text) == ["\u0301", "\u00b2", "#"]
