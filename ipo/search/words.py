"""Which texts are English and fit to be read, by word lists that are there on every machine."""

from __future__ import annotations

import gzip
import importlib.util
import re
import string
from functools import cache
from itertools import islice
from pathlib import Path

from ipo.errors import ConfigError

LISTS = Path(__file__).parent / "wordlists"
"""The word lists of this package."""
_MERGES = 100_000
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_INFLECTIONS = ("'s", "’s", "s", "es", "ed", "d", "ing")
_DERIVATIONS = ("ly", "er", "est", "ish", "like")
_SIGNS = frozenset(string.digits + string.whitespace + ".,;:!?'\"()&%/+-" + "‘’“”–—…")
"""What stands between the words of a sentence."""


@cache
def vocabulary() -> tuple[str, ...]:
    """All words that are known and fit to be read, in alphabetical order."""
    return tuple(sorted(word for word in _known() if not unfit_words(word)))


def unknown_words(text: str) -> list[str]:
    """The words of `text` that are not in CLIP's vocabulary, nor regular forms of one that is."""
    known = _known()
    return [
        word for word in _words(text) if not any(form in known for form in _forms(word, _INFLECTIONS + _DERIVATIONS))
    ]


def unfit_words(text: str) -> list[str]:
    """The violent, sexual or insulting words of `text`."""
    unfit = read_list("unfit.txt")
    return [word for word in _words(text) if any(form in unfit for form in _forms(word, _INFLECTIONS))]


def odd_signs(text: str) -> list[str]:
    """The characters of `text` that are neither letters nor found in plain sentences, such as `#` or an emoji."""
    return [sign for sign in dict.fromkeys(text) if not sign.isalpha() and sign not in _SIGNS]


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(word.lower() for word in _WORD.findall(text)))


def _forms(word: str, endings: tuple[str, ...]) -> list[str]:
    """The word, and what it may be a regular form of."""
    stems = [word.removesuffix(ending) for ending in endings if word.endswith(ending) and len(word) > len(ending) + 2]
    return [word, *stems, *(f"{stem}e" for stem in stems), *(stem[:-1] for stem in stems if stem[-1:] == stem[-2:-1])]


@cache
def _known() -> frozenset[str]:
    """Whole words among the first merges of CLIP's byte-pair list, plus our own, minus foreign ones.

    The list is ordered by frequency in captions and alt texts, so its head is the vocabulary of picture descriptions.
    """
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None, "a dependency of this package"
    folder = Path(next(iter(spec.submodule_search_locations or ())))
    with gzip.open(folder / "bpe_simple_vocab_16e6.txt.gz", "rt", encoding="utf-8") as file:
        merges = [line.split() for line in islice(file, _MERGES)]
    ends = ("".join(merge).removesuffix("</w>") for merge in merges if merge and merge[-1].endswith("</w>"))
    words = {word for word in ends if word.isascii() and word.isalpha() and len(word) > 1}
    return frozenset((words | read_list("english.txt") | {"a", "i"}) - read_list("foreign.txt"))


@cache
def read_list(name: str, folder: Path = LISTS) -> frozenset[str]:
    """The words of a list. Raises `ConfigError` where it is missing or empty, since then everything would pass."""
    try:
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"a word list cannot be read: {error}", remedy="Install ipo again") from error
    words = frozenset(word for line in lines for word in line.partition("#")[0].split())
    if not words:
        raise ConfigError("a word list is empty", where=str(folder / name), remedy="Install ipo again")
    return words
