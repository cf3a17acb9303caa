"""Phrases of the word lists that are drawn without any model."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ipo.errors import ConfigError
from ipo.llm.phrases import MOST_ADJECTIVES, WordLists, content_key, with_article, word_lists
from ipo.llm.presets import user_file
from ipo.prompt import CLASS_PLACEHOLDER


def random_phrases(n: int, seed: int, lists: WordLists | None = None) -> list[str]:
    """`n` phrases that say different things, drawn without any model: the control of a search among phrases.

    Each choice is uniform: the kind, the medium, how many adjectives and which, whether there
    is a place and an ending, and which. Raises `ConfigError` where the lists hold too few phrases.
    """
    lists = lists or word_lists()
    draws = random.Random(seed)
    phrases: dict[str, str] = {}
    for _ in range(100 * n):
        if len(phrases) == n:
            break
        phrase = _random_phrase(lists, draws)
        phrases.setdefault(content_key(phrase), phrase)
    else:
        if len(phrases) < n:
            raise ConfigError(f"the word lists hold fewer than {n} phrases", where=str(user_file("phrases")))
    return list(phrases.values())


def _random_phrase(lists: WordLists, draws: random.Random) -> str:
    kind = draws.choice(list(lists.kind.values()))
    if not kind.media:
        return _sentence("", _perhaps(lists.things + lists.makes, draws), _perhaps(lists.places, draws), draws)
    named = [name for name in kind.aspects if lists.aspect[name].before]
    places = range(len(named) + bool(lists.things))
    chosen = sorted(draws.sample(places, min(draws.randint(0, MOST_ADJECTIVES), len(places))))
    said = [named[place] for place in chosen if place < len(named)]
    words = [draws.choice(lists.aspect[name].before) for name in said]
    thing = draws.choice([word for word in lists.things if word not in words]) if len(chosen) > len(said) else ""
    place = _perhaps(lists.places, draws) if kind.places else ""
    open_aspects = [lists.aspect[name] for name in kind.aspects if name not in said]
    endings = [ending for aspect in open_aspects if not (place and aspect.alone) for ending in aspect.after]
    ending = _perhaps(endings, draws)
    behind = f"{place}, {ending}" if place and ending else place or ending
    return _sentence(" ".join([*words, draws.choice(kind.media)]), thing, behind, draws)


def _perhaps(words: Sequence[str], draws: random.Random) -> str:
    return draws.choice(words) if words and draws.random() < 0.5 else ""


def _sentence(medium: str, thing: str, behind: str, draws: random.Random) -> str:
    """The phrase of its parts, any of which but the class may be empty."""
    front = f"{with_article(medium)} of " if medium else ""
    things = f"{thing} {CLASS_PLACEHOLDER}" if thing else CLASS_PLACEHOLDER
    article = with_article(thing).split()[0] if thing else "a"
    return f"{front}{draws.choice((article, 'the'))} {things}{' ' * bool(behind)}{behind}."
