"""Which classes a text names: a prompt that does is about those, and its score says nothing about other classes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_ASIDE = re.compile(r"\(.*?\)")
_OR = re.compile(r"[,/;]")
_IRREGULAR = {
    "children": "child", "feet": "foot", "geese": "goose", "lice": "louse", "mice": "mouse", "oxen": "ox",
    "people": "person", "teeth": "tooth",
}  # fmt: skip
_PLURALS = (
    ("ies", ("y",)), ("ves", ("f", "fe")), ("men", ("man",)), ("i", ("us",)), ("s", ("",)),
    *((f"{end}es", (end,)) for end in ("s", "x", "z", "ch", "sh", "o")),
)  # fmt: skip
"""Endings of plurals with those of their singulars."""


def named_classes(text: str, classnames: Iterable[str]) -> list[str]:
    """Those of `classnames` that `text` names as whole words: in any case, as singular, plural or possessive.

    Words may stand apart, together or with a hyphen. A name with an aside or alternatives, such as `crane (bird)` or
    `couch, sofa`, is named by each of its parts.
    """
    found, words = set[str](), _words(text)
    for start in range(len(words)):
        for stop in range(start + 1, len(words) + 1):
            found |= _keys(words[start:stop])
    return [name for name in classnames if not found.isdisjoint(_name_keys(name))]


@lru_cache(maxsize=1 << 14)
def _name_keys(name: str) -> frozenset[str]:
    """The keys of a name, and of what else it goes by."""
    parts = [name, _ASIDE.sub(" ", name), *_OR.split(_ASIDE.sub(" ", name))]
    return frozenset().union(*(_keys(words) for words in map(_words, parts) if words))


def _keys(words: Sequence[str]) -> set[str]:
    """Consecutive words put together, in all that the last one may be the plural of."""
    return {"".join(words[:-1]) + end for end in _singulars(words[-1])}


def _words(text: str) -> list[str]:
    """Words in lower case, without accents, possessive endings and apostrophes."""
    letters = "".join(sign for sign in unicodedata.normalize("NFKD", text) if not unicodedata.combining(sign))
    found = (re.sub(r"['’]s$", "", word) for word in _WORD.findall(letters.casefold()))
    return [re.sub(r"['’]", "", word) for word in found]


@lru_cache(maxsize=1 << 14)
def _singulars(word: str) -> frozenset[str]:
    """The word, and all that it may be the plural of."""
    found = {word, _IRREGULAR.get(word, word)}
    for plural, singulars in _PLURALS:
        stem = word.removesuffix(plural)
        if stem != word and len(stem) > 1 and not word.endswith("ss"):
            found |= {stem + singular for singular in singulars}
    return frozenset(found)
