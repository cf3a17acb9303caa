"""Phrases that a person could have written: their word lists, and a grammar over them."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

from ipo.config import Section, describe_validation
from ipo.errors import ConfigError
from ipo.llm.presets import user_file
from ipo.naming import named_classes
from ipo.prompt import CLASS_PLACEHOLDER, text_key
from ipo.render import render, templates_folder
from ipo.store.toml import read_toml

LONGEST_ENTRY = 40
"""Most characters of one entry of a word list."""
MOST_ADJECTIVES = 2
FUNCTION_WORDS = frozenset(
    ("a", "an", "and", "as", "at", "by", "for", "from", "in", "into", "of", "on", "or", "that", "the", "to", "with")
)
"""Words that make no phrase another one."""
_WORDS = 4
"""How many words of a list one reply may use that are not in sight, and at most as many again of those that are."""
_ASPECTS = 3
_FOLLOW = 0.5
"""How likely what is in sight is taken up again."""
_FREE = 0.5
"""How likely a reply may name a place, and may do without an adjective."""
_ENTRY = re.compile(r"[^\W_]+(?:[ '’-][^\W_]+)*")
_VOWEL = re.compile(
    r"[aeio]|u(?!ni|se|su|ti|te|ra|re|ro|ku)|hou?r\b|heir|honest|honou?r|x-ray|8|1[18]\b", re.IGNORECASE
)
_NO_VOWEL = re.compile(r"eu|ewe|one\b|once\b", re.IGNORECASE)


def _entry(text: str) -> str:
    if not _ENTRY.fullmatch(text) or len(text) > LONGEST_ENTRY:
        raise ValueError(f"letters and digits with single spaces or hyphens between, at most {LONGEST_ENTRY} in all")
    return text


Words = tuple[Annotated[str, AfterValidator(_entry)], ...]


class Aspect(Section):
    """What a phrase says at most once: by an adjective `before` the medium, or an ending `after` the class."""

    before: Words = ()
    after: Words = ()
    alone: bool = False


class Kind(Section):
    """Media that may be described alike."""

    media: Words = ()
    aspects: tuple[str, ...] = ()
    places: bool = False
    plain: bool = True


class WordLists(Section):
    """What phrases are put together from; `templates/phrases.toml` explains the fields."""

    things: Words = ()
    makes: Words = ()
    places: Words = ()
    aspect: dict[str, Aspect] = Field(default_factory=dict)
    kind: dict[str, Kind] = Field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Eight digits that differ where the lists do."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:8]

    def changed(self, change: Callable[[str, Words], Words]) -> WordLists:
        """The lists after `change`, which is given the name of each and its entries."""
        aspects = {
            name: aspect.model_copy(
                update={"before": change("before", aspect.before), "after": change("after", aspect.after)}
            )
            for name, aspect in self.aspect.items()
        }
        kinds = {
            name: kind.model_copy(update={"media": change("media", kind.media)}) for name, kind in self.kind.items()
        }
        plain = {name: change(name, getattr(self, name)) for name in ("things", "makes", "places")}
        return self.model_copy(update={**plain, "aspect": aspects, "kind": kinds})

    def without(self, classnames: Sequence[str]) -> WordLists:
        """The lists without the entries that name a class."""
        return self.changed(lambda _, words: tuple(word for word in words if not named_classes(word, classnames)))

    def sample(self, shown: str, draws: random.Random) -> WordLists:
        """What one reply may say: one kind, three of its aspects, and a few words of each list.

        Half the time the kind is one that occurs in `shown`; of each list some words are new and some occur there. So
        a model can go on with what did well, and no two replies have the same choice.
        """
        seen = _occurring(self, shown)
        liked = [name for name, kind in self.kind.items() if not seen.isdisjoint(kind.media)]
        name = draws.choice(liked if liked and draws.random() < _FOLLOW else list(self.kind))
        kind = self.kind[name]
        aspects = draws.sample(kind.aspects, min(_ASPECTS, len(kind.aspects)))
        frame = {
            "aspects": tuple(aspect for aspect in kind.aspects if aspect in aspects),
            "places": kind.places and draws.random() < _FREE,
            "plain": kind.plain and draws.random() < _FREE,
        }
        one = {
            "aspect": {aspect: self.aspect[aspect] for aspect in aspects},
            "kind": {name: kind.model_copy(update=frame)},
        }
        few = self.model_copy(update=one).changed(lambda _, words: _few(words, seen, draws))
        adjectives = {word for aspect in few.aspect.values() for word in aspect.before}
        return few.model_copy(update={"things": tuple(word for word in few.things if word not in adjectives)})


def word_lists() -> WordLists:
    """The shipped lists and the user's. Raises `ConfigError` naming the list and the entry that is wrong."""
    own = user_file("phrases")
    return _word_lists(own, own.stat().st_mtime_ns if own.is_file() else 0)


@cache
def _word_lists(own: Path, _: int) -> WordLists:
    tables = _read(templates_folder() / "phrases.toml")
    if own.is_file():
        tables = _joined(tables, _read(own))
    lists = WordLists.model_validate(tables)
    for name, kind in lists.kind.items():
        if missing := [aspect for aspect in kind.aspects if aspect not in lists.aspect]:
            what = f"the word lists of phrases are wrong: kind.{name} has aspects that are not there"
            raise ConfigError(
                f"{what}: {', '.join(missing)}", where=str(own), remedy="Write a table [aspect.NAME] of each"
            )
    return lists


def _read(path: Path) -> dict[str, Any]:
    """The tables of one file, each entry checked."""
    try:
        return WordLists.model_validate(read_toml(path, "phrases")).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        raise ConfigError(
            f"the word lists of phrases are wrong: {describe_validation(error)}", where=str(path)
        ) from error


def _joined(below: Any, above: Any) -> Any:
    """Tables as one; a list has the entries of both, each once."""
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        return {**below, **{key: _joined(below[key], value) if key in below else value for key, value in above.items()}}
    if isinstance(below, list) and isinstance(above, list):
        return [*below, *(entry for entry in above if entry not in below)]
    return above


def _occurring(lists: WordLists, text: str) -> frozenset[str]:
    """The entries that stand in a text as whole words."""
    found: set[str] = set()

    def look(_: str, words: Words) -> Words:
        found.update(word for word in words if word in text and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text))
        return words

    lists.changed(look)
    return frozenset(found)


def _few(words: Words, seen: frozenset[str], draws: random.Random) -> Words:
    """Some words that nobody sees yet, and some of those in sight, in the order of the list."""
    new, old = ([word for word in words if (word in seen) == shown] for shown in (False, True))
    kept = [word for word in draws.sample(old, min(_WORDS, len(old))) if draws.random() < _FOLLOW]
    chosen = {*kept, *draws.sample(new, min(_WORDS, len(new)))}
    return tuple(word for word in words if word in chosen)


def with_article(words: str) -> str:
    """The words with `a` or `an` in front, by the sound that they begin with."""
    vowel = _VOWEL.match(words) and not _NO_VOWEL.match(words)
    return f"{'an' if vowel else 'a'} {words}"


def pattern(lists: WordLists) -> str:
    """The regular expression of all phrases of the lists, in what RE2, ECMA 262 and Rust understand alike."""
    text = render("phrase.regex", lists=lists, with_article=with_article, slot=CLASS_PLACEHOLDER)
    return "".join(line.strip("\n") for line in text.splitlines())


def grammar(lists: WordLists) -> str:
    """The same language in llguidance's Lark."""
    return render("phrase.lark", pattern=pattern(lists))


def content_key(text: str) -> str:
    """What two phrases share that say the same: their words without order and function words."""
    words = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text_key(text).replace(CLASS_PLACEHOLDER.casefold(), " "))
    return " ".join(sorted(word for word in words if word not in FUNCTION_WORDS))
