"""Phrases: what their grammar takes and refuses, what random ones look like, and whose words they are made of."""

import random
import re
import time
from functools import cache
from pathlib import Path

import pytest
from llguidance import LLMatcher

from ipo.config import LLMSettings
from ipo.errors import ConfigError
from ipo.llm.base import Message, Reply, ReplyForm, Style
from ipo.llm.load import grammar_of, require_llm
from ipo.llm.local.huggingface import HuggingFaceLLM
from ipo.llm.phrases import WordLists, content_key, grammar, pattern, with_article, word_lists
from ipo.llm.presets import presets
from ipo.llm.random_phrases import random_phrases
from ipo.prompt import Prompt, text_key
from ipo.search.propose import MOST_CHARACTERS, Reject, accept
from ipo.search.words import odd_signs, unfit_words, unknown_words
from tests.llm.test_local import CONTINUE, tiny_llm
from tests.test_propose import checks

SHOWN = (
    "- score 61: a photo of a <CLASS>.\n- score 62: a bright pencil sketch of the <CLASS> in a garden, seen from above."
)


@pytest.fixture(autouse=True)
def no_own_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IPO_PHRASES", str(tmp_path / "phrases.toml"))


@cache
def whole_grammar() -> str:
    return grammar(word_lists())


@cache
def compiled(language: str) -> LLMatcher:
    return LLMatcher(tiny_llm().token_table, language)


def is_taken(text: str, language: str | None = None) -> bool:
    """Whether llguidance lets the tiny tokenizer write the text to its end."""
    matcher = compiled(language or whole_grammar()).deep_copy()
    return all(map(matcher.consume_token, tiny_llm().tokenizer(text)["input_ids"])) and matcher.is_accepting()


@pytest.mark.parametrize(
    "text",
    [
        "a photo of a <CLASS>.",
        "a pencil sketch of a <CLASS>.",
        "a bad photo of a <CLASS>.",
        "a blurry black and white photo of a <CLASS>.",
        "a painting of a <CLASS> in bright colours.",
        "a close-up photo of the <CLASS>.",
        "a photo of the hard to see <CLASS>.",
        "an oil painting of an old <CLASS> in a garden, with visible brush strokes.",
        "an embroidered <CLASS>.",
        "the origami <CLASS> on a table.",
        "a wooden sculpture of a <CLASS> on a pedestal.",
        "an icon of the <CLASS> on a white background.",
        "a <CLASS> in the snow.",
    ],
)
def test_the_grammar_writes_what_people_write(text: str) -> None:
    assert is_taken(text)
    assert is_taken(f" {text}")


@pytest.mark.parametrize(
    "text",
    [
        "a photo of a sketch of a <CLASS>.",
        "a oil painting of a <CLASS>.",
        "an photo of a <CLASS>.",
        "a photo of a old <CLASS>.",
        "a photo of an <CLASS>.",
        "a photo of a <CLASS>",
        "a photo of a <CLASS>..",
        "a photo <CLASS>.",
        "photo of a <CLASS>.",
        "a photo of a <CLASS> of a <CLASS>.",
        "a good blurry photo of an old <CLASS>.",
        "a good old blurry photo of a <CLASS>.",
        "a blurry good photo of a <CLASS>.",
        "a colourful black and white photo of a <CLASS>.",
        "a black and white photo of a <CLASS> in bright colours.",
        "a photo of a <CLASS> with visible brush strokes.",
        "a pencil sketch of a <CLASS> taken at night.",
        "an overexposed oil painting of a <CLASS>.",
        "a marble photo of a <CLASS>.",
        "a photo of a <CLASS> in a garden in a forest.",
        "a photo of a <CLASS> seen from above, in a garden.",
        "a photo of a <CLASS>, seen from above.",
        "a cartoon of a <CLASS> in a garden, on a poster.",
        "an icon of a <CLASS> in a forest.",
        "a photo of a <CLASS> taken by.",
    ],
)
def test_the_grammar_refuses_what_they_do_not(text: str) -> None:
    assert not is_taken(text)


def entries() -> list[str]:
    lists = word_lists()
    words = [*lists.things, *lists.makes, *lists.places]
    words += [word for aspect in lists.aspect.values() for word in (*aspect.before, *aspect.after)]
    return words + [word for kind in lists.kind.values() for word in kind.media]


def test_there_are_some_hundred_words_of_each_sort_and_all_pass_what_proposals_must_pass() -> None:
    lists = word_lists()
    assert len(lists.places) > 90
    assert sum(len(kind.media) for kind in lists.kind.values()) > 150
    assert sum(len(aspect.before) for aspect in lists.aspect.values()) > 300
    assert sum(len(aspect.after) for aspect in lists.aspect.values()) > 250
    for word in entries():
        assert unknown_words(word) == unfit_words(word) == odd_signs(word) == [], word


def test_no_phrase_says_a_word_twice_before_the_class_and_no_ending_the_word_of_the_medium() -> None:
    lists = word_lists()
    for name, kind in lists.kind.items():
        aspects = [lists.aspect[one] for one in kind.aspects]
        before = [word for aspect in aspects for word in aspect.before]
        assert len(set(before)) == len(before), name
        said = {word for text in kind.media for word in text.split()} - {"picture"}
        for words in [*before, *(after for aspect in aspects for after in aspect.after)]:
            assert not said & set(words.split()), f"{name}: {words}"


SOUNDED = {"unique": "a", "unusual": "an", "ugly": "an", "one": "a", "hour": "an", "x-ray": "an", "35mm photo": "a"}
SOUNDED |= {"European": "a", "used": "a", "uniform": "a", "honest": "an", "historic": "a", "8-bit picture": "an"}
SOUNDED |= {"unknown": "an", "unfinished": "an", "unedited": "an", "utensil": "a", "house": "a", "umbrella": "an"}
SOUNDED |= {"underexposed": "an", "unshaded": "an", "outlined": "an", "yellowed": "a", "urban": "an"}


def test_every_word_has_the_article_of_its_sound() -> None:
    for word, article in SOUNDED.items():
        assert with_article(word) == f"{article} {word}"
    for word in entries():
        if word not in SOUNDED:
            assert not word.lower().startswith(("eu", "uni", "one", "hour", "hon", "x-", "8")), f"list {word} above"
            assert with_article(word) == f"{'an' if word[0].lower() in 'aeiou' else 'a'} {word}"


def reads(text: str) -> bool:
    """The same language read from left to right, without a regular expression or a template."""
    lists = word_lists()
    if not text.endswith(".") or text.count("<CLASS>") != 1:
        return False
    front, behind = text[:-1].split("<CLASS>")
    medium, _, slot = front.rpartition(" of ")
    thing = slot.strip().removeprefix("the ").removeprefix("an ").removeprefix("a ")
    thing = "" if thing in ("a", "the") else thing
    if slot.strip() not in {"the" if not thing else f"the {thing}", "a" if not thing else with_article(thing)}:
        return False
    return any(_reads_as(name, medium, thing, behind) for name in lists.kind)


def _reads_as(name: str, medium: str, thing: str, behind: str) -> bool:
    lists = word_lists()
    kind = lists.kind[name]
    if not kind.media:
        things = ("", *lists.things, *lists.makes)
        return not medium and thing in things and behind in ("", *(f" {place}" for place in lists.places))
    words = medium.removeprefix("an ").removeprefix("a ")
    if not words or with_article(words) != medium or thing not in ("", *lists.things):
        return False
    said = _adjectives(kind.media, [(one, lists.aspect[one].before) for one in kind.aspects], words)
    endings = {ending: one for one in kind.aspects for ending in lists.aspect[one].after}
    place, comma, ending = behind.strip().partition(", ")
    if not comma and place in endings:
        place, ending = "", place
    if place and not (kind.places and place in lists.places):
        return False
    owners = [one for one in kind.aspects if ending in lists.aspect[one].after]
    owners = [one for one in owners if not (place and lists.aspect[one].alone)]
    return any(
        len(one) + bool(thing) <= 2 and (not ending or any(owner not in one for owner in owners)) for one in said
    )


def _adjectives(
    media: tuple[str, ...], aspects: list[tuple[str, tuple[str, ...]]], words: str
) -> list[tuple[str, ...]]:
    """The aspects that each way to read the words in front of a medium speaks of."""
    found: list[tuple[str, ...]] = [()] if words in media else []
    for place, (name, before) in enumerate(aspects):
        for word in before:
            if words.startswith(f"{word} "):
                rest = words[len(word) + 1 :]
                found += [(name, *others) for others in _adjectives(media, aspects[place + 1 :], rest)]
    return found


@cache
def many() -> tuple[str, ...]:
    return tuple(random_phrases(2000, seed=5))


def test_random_phrases_are_what_another_reader_takes_and_all_say_something_else() -> None:
    for text in many():
        assert reads(text), text
        assert Prompt(text).text == text
        assert len(text) <= MOST_CHARACTERS
        assert len(text.split()) <= 30, "well inside the 77 tokens that CLIP reads"
    assert len({content_key(text) for text in many()}) == 2000
    assert not reads("a photo of a sketch of a <CLASS>.")
    assert not reads("a black and white photo of a <CLASS> in bright colours.")


def test_the_pattern_takes_every_random_phrase_and_a_sample_of_the_lists_only_its_own() -> None:
    whole = re.compile(pattern(word_lists()))
    assert all(whole.fullmatch(text) for text in many())
    for seed in range(20):
        few = word_lists().sample(SHOWN, random.Random(seed))
        small = re.compile(pattern(few))
        for text in random_phrases(3, seed, few.model_copy(update={"kind": _free(few)})):
            assert whole.fullmatch(text)
            assert is_taken(text, grammar(few)) == bool(small.fullmatch(text))


def _free(lists: WordLists) -> dict[str, object]:
    return {name: kind.model_copy(update={"plain": True}) for name, kind in lists.kind.items()}


def test_random_phrases_depend_on_the_seed_alone() -> None:
    random.seed(1)
    first = random_phrases(20, seed=3)
    assert random_phrases(20, seed=3) == first
    assert random_phrases(30, seed=3)[:20] == first
    assert random_phrases(20, seed=4) != first
    kinds = [kind.media for kind in word_lists().kind.values()]
    for media in kinds:
        assert sum(not media or any(f" {medium} of " in text for medium in media) for text in many()) > 60


def test_a_grammar_is_there_in_a_moment() -> None:
    lists = word_lists()
    started = time.process_time()
    for seed in range(8):
        LLMatcher(tiny_llm().token_table, grammar(lists.sample(SHOWN, random.Random(seed)))).compute_bitmask()
    assert time.process_time() - started < 8 * 0.3


def test_what_is_in_sight_can_be_said_again_and_what_is_new_can_always() -> None:
    followed, kinds = 0, set()
    for seed in range(200):
        few = word_lists().sample(SHOWN, random.Random(seed))
        ((name, kind),) = few.kind.items()
        kinds.add(name)
        followed += "pencil sketch" in kind.media
        assert not kind.media or any(word not in SHOWN for word in kind.media)
        assert not set(few.things) & {word for aspect in few.aspect.values() for word in aspect.before}
    assert kinds == set(word_lists().kind)
    assert 20 < followed < 120
    assert len({word_lists().sample(SHOWN, random.Random(seed)).digest for seed in range(50)}) == 50


def test_words_without_function_words_and_order_are_what_a_phrase_says() -> None:
    assert content_key("a photo of a <CLASS>.") == content_key("The  photo of the <CLASS>") == "photo"
    assert content_key("a big, old photo of a <CLASS>.") == content_key("an old big photo of a <CLASS>.")
    assert content_key("a photo of a <CLASS> seen from above.") != content_key("a photo of a <CLASS> seen from below.")
    text = "a close-up photo of a <CLASS> in black and white."
    assert content_key(text_key(text)) == content_key(text) == "black close-up photo white"


@cache
def phrase_llm() -> HuggingFaceLLM:
    free = tiny_llm()
    style = Style(chat=False, template="continue.j2", top_p=0.9, grammar="phrase")
    return HuggingFaceLLM(free.model, free.tokenizer, "tiny", style)


ASK = [Message("user", SHOWN)]


def test_a_local_model_writes_phrases_that_say_different_things_and_repeats_with_the_seed() -> None:
    llm = phrase_llm()
    replies = llm.generate(ASK, 8, 1.0, 160, seed=1)
    texts = [reply.text for reply in replies]
    assert all(reads(text) for text in texts)
    assert len({content_key(text) for text in texts}) == 8
    assert {reply.form for reply in replies} == {"phrase"}
    assert [reply.text for reply in llm.generate(ASK, 8, 1.0, 160, seed=1)] == texts
    assert [reply.text for reply in llm.generate(ASK, 8, 1.0, 160, seed=2)] != texts
    known = {text_key(text.replace("a <CLASS>", "the <CLASS>")) for text in texts}
    again = llm.generate(ASK, 8, 1.0, 160, seed=1, known=known)
    assert not {content_key(reply.text) for reply in again} & {content_key(text) for text in known}


def test_no_phrase_names_a_class() -> None:
    names = ("photo", "sketch", "garden", "tree")
    kept = word_lists().without(names)
    assert set(entries()) - set(kept.places) >= {"in a garden", "under a tree", "between trees"}
    named = re.compile(r"\b(photos?|sketch|gardens?|trees?)\b")
    assert not any(named.search(text) for text in random_phrases(300, 1, kept))
    replies = phrase_llm().generate(ASK, 4, 1.0, 160, seed=1, unnamed=names)
    assert not any(named.search(reply.text) for reply in replies)


def test_a_phrase_that_says_what_was_said_is_a_reject_and_free_words_are_not() -> None:
    texts = ["a photo of a <CLASS>.", "the photo of the <CLASS>."]
    expected: list[tuple[ReplyForm, list[str]]] = [("phrase", ["duplicate"]), ("line", [])]
    for form, kinds in expected:
        verdicts = accept([Reply(text, form, "stop") for text in texts], set(), checks())
        assert [verdict.kind for verdict in verdicts if not isinstance(verdict, Prompt)] == kinds
    (verdict,) = accept([Reply(texts[1], "phrase", "stop")], {text_key(texts[0])}, checks())
    assert isinstance(verdict, Reject)
    assert verdict.reason.startswith("duplicate: the words of an earlier one")


def test_own_words_are_added_and_own_kinds_are_phrases_too(tmp_path: Path) -> None:
    shipped, digest = word_lists(), word_lists().digest
    (tmp_path / "phrases.toml").write_text(
        'places = ["in a laboratory", "in a park"]\n[kind.photo]\nmedia = ["electron micrograph"]\n'
        '[aspect.stain]\nbefore = ["stained"]\nafter = ["at low power"]\n'
        '[kind.slide]\nmedia = ["histology slide"]\naspects = ["stain"]\n'
    )
    own = word_lists()
    assert own.places == (*shipped.places, "in a laboratory")
    assert own.kind["photo"].media == (*shipped.kind["photo"].media, "electron micrograph")
    assert own.kind["photo"].places
    assert own.kind["photo"].aspects == shipped.kind["photo"].aspects
    assert own.digest != digest
    language = grammar(own)
    assert is_taken("a stained histology slide of a <CLASS>.", language)
    assert is_taken("a blurry electron micrograph of a <CLASS> in a laboratory.", language)
    assert not is_taken("a stained photo of a <CLASS>.", language)
    assert not is_taken("a stained histology slide of a <CLASS> at low power.", language)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("places = [", "cannot read phrases"),
        ('places = "in a park"', "'places'"),
        ("places = [3]", "'places.0'"),
        ('places = [""]', "'places.0'"),
        ('places = ["in a park."]', "letters and digits"),
        ('places = ["beside a <CLASS>"]', "letters and digits"),
        ('things = ["odd|even"]', "letters and digits"),
        ('things = [" old"]', "letters and digits"),
        (f'things = ["{"long " * 9}word"]', "at most 40"),
        ('places = ["in a\\npark"]', "letters and digits"),
        ('place = ["in a park"]', "unknown key 'place'"),
        ('[kind.photo]\nmedium = ["photo"]', "unknown key 'kind.photo.medium'"),
        ('[kind.photo]\naspects = ["taste"]', "kind.photo has aspects that are not there: taste"),
        ("kind = 3", "'kind'"),
    ],
)
def test_own_lists_that_are_wrong_are_one_clear_error(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "phrases.toml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(says)) as caught:
        require_llm(LLMSettings(spec=str(tmp_path), grammar="phrase"), offline=True)
    assert "phrases.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lists_with_too_few_phrases_say_so() -> None:
    lists = WordLists.model_validate({"kind": {"one": {"media": ["photo"]}}})
    assert random_phrases(1, 0, lists)[0] in ("a photo of a <CLASS>.", "a photo of the <CLASS>.")
    with pytest.raises(ConfigError, match="fewer than 2 phrases"):
        random_phrases(2, 0, lists)


def test_the_offline_model_writes_phrases_unless_told_otherwise() -> None:
    rows = presets()
    assert [name for name, row in rows.items() if row.grammar == "phrase"] == ["smollm2-135m"]
    assert grammar_of(rows["smollm2-135m"], LLMSettings()) == "phrase"
    assert grammar_of(rows["smollm2-135m"], LLMSettings(grammar="free")) == "free"
    assert grammar_of(rows["qwen3-4b"], LLMSettings()) == "free"
    assert grammar_of(rows["qwen3-4b"], LLMSettings(grammar="phrase")) == "phrase"
    assert CONTINUE.grammar == "free"
