"""The control that any search has to beat: as many proposals, of which none knows how the others did.

Random words after the class name are WaffleCLIP's (arXiv 2306.07282), of this project's vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from ipo.config import Section
from ipo.llm.random_phrases import random_phrases
from ipo.prompt import CLASS_PLACEHOLDER
from ipo.search.meta_prompt import build_messages
from ipo.search.strategy import Ask, Strategy, View
from ipo.search.words import vocabulary

WORDS = 2
"""Random words in a sentence, of the two or so that WaffleCLIP takes for class names of ordinary length."""


class RandomOptions(Section):
    """Where the proposals come from."""

    source: Literal["phrases", "words", "llm"] = "phrases"
    """`phrases` of the grammar that small models are held to; random `words` after "a photo of a <CLASS>, which has";
    or the `llm`, which is shown no history."""


def ask(view: View, options: RandomOptions) -> Sequence[Ask]:
    """Proposals without feedback."""
    count = view.settings.candidates
    if options.source == "llm":
        messages = build_messages(view.template, [], view.captions, view.form)
        return [Ask(tuple(messages), count)]
    if options.source == "phrases":
        return [Ask(texts=tuple(random_phrases(count, view.seed)))]
    draws = view.draws()
    return [Ask(texts=tuple(_with_words(draws) for _ in range(count)))]


def _with_words(draws: random.Random) -> str:
    words = " ".join(draws.sample(vocabulary(), WORDS))
    return f"a photo of a {CLASS_PLACEHOLDER}, which has {words}."


STRATEGY = Strategy(
    name="random",
    summary="the same number of proposals without feedback: the control that any search has to beat",
    ask=ask,
    passes_over=("search.history", "search.keep_first"),
    options=RandomOptions,
    asks_llm=lambda options: options.source == "llm",
    paper="Waffling around for Performance, arXiv 2306.07282",
)
