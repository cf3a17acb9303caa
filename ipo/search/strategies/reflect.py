"""The classes that the best prompt confuses most, with what is seen in the images concerned; which words would help?"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from pydantic import NonNegativeInt, PositiveInt

from ipo.config import Section
from ipo.search.meta_prompt import history_rows, next_accuracy, one_message, single_line
from ipo.search.strategy import Ask, Mistake, Strategy, View


class ReflectOptions(Section):
    """What is shown beside the history."""

    pairs: PositiveInt = 3
    """So many pairs of classes, those that the best prompt confuses most."""
    images: NonNegativeInt = 2
    """Captions of at most so many images a pair, drawn anew in each step from those taken for the other class."""


def ask(view: View, options: ReflectOptions) -> Sequence[Ask]:
    """One question a step; the proposals descend from the best prompt."""
    best, shown = view.history.best(), view.top()
    confused = confused_pairs(view.mistakes(best.text))[: options.pairs]
    draws = view.draws()
    messages = one_message(
        view.template_or("reflect.j2"),
        continues=view.continues,
        form=view.form,
        history=history_rows(shown),
        next_accuracy=next_accuracy(shown),
        best=best.text,
        pairs=[_row(mistakes, options.images, draws) for mistakes in confused],
        may_name_classes=view.settings.class_names_allowed,
    )
    return [Ask(tuple(messages), view.settings.candidates, (best.id,))]


def confused_pairs(mistakes: Sequence[Mistake]) -> list[list[Mistake]]:
    """The mistakes of each pair of classes, either taken for the other; most first, of equals the earlier image's."""
    pairs: dict[frozenset[str], list[Mistake]] = {}
    for mistake in mistakes:
        pairs.setdefault(frozenset((mistake.truth, mistake.taken_for)), []).append(mistake)
    return sorted(pairs.values(), key=len, reverse=True)


def _row(mistakes: Sequence[Mistake], count: int, draws: random.Random) -> dict[str, Any]:
    """One pair as the template shows it."""
    described = [mistake for mistake in mistakes if mistake.caption]
    drawn = draws.sample(described, min(count, len(described)))
    return {
        "names": sorted(single_line(name) for name in (mistakes[0].truth, mistakes[0].taken_for)),
        "count": len(mistakes),
        "images": [
            {
                "truth": single_line(mistake.truth),
                "taken_for": single_line(mistake.taken_for),
                "caption": single_line(mistake.caption),
            }
            for mistake in sorted(drawn, key=lambda mistake: mistake.image)
        ],
    }


STRATEGY = Strategy(
    name="reflect",
    summary="beside the best prompts the classes that the best one confuses most, with captions of the images; "
    "the LLM is thus shown class names",
    ask=ask,
    one_label=lambda _: True,
    options=ReflectOptions,
    names_classes=lambda _: True,
)
