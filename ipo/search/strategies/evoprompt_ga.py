"""EvoPrompt's genetic algorithm: an LLM crosses two prompts of a population and mutates what comes of it.

The best of parents and children survive, so that the population is the best entries of the history.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from ipo.prompt import HistoryEntry
from ipo.search.meta_prompt import history_rows, next_accuracy, one_message, single_line
from ipo.search.pools import StartOptions, start_templates
from ipo.search.strategy import Ask, Strategy, View

Selection = Literal["wheel", "random", "tournament"]


class GeneticOptions(StartOptions):
    """Size of the population, and who become parents."""

    population: int = Field(default=10, ge=2)
    """Prompts that survive a step."""
    parents: Selection = "wheel"
    """How parents are drawn: in proportion to training accuracy, at `random`, or the better of two (`tournament`)."""


def ask(view: View, options: GeneticOptions) -> Sequence[Ask]:
    """A question for each child."""
    population = view.history.ranked()[: options.population]
    draws = view.draws()
    return [_cross(view, draw_parents(population, options.parents, draws)) for _ in range(view.settings.candidates)]


def draw_parents(population: Sequence[HistoryEntry], how: Selection, draws: random.Random) -> list[HistoryEntry]:
    """Two members of a population that is in order, the better one first; of one member that one."""
    places = list(range(len(population)))
    if len(places) < 2:
        return list(population)
    if how == "tournament":
        pairs = [sorted(draws.sample(places, 2))[0] for _ in range(2)]
        return [population[place] for place in sorted(set(pairs))]
    if how == "random":
        return [population[place] for place in sorted(draws.sample(places, 2))]
    chances = [max(0.0, entry.score.value) for entry in population if entry.score]
    first = _turn(places, chances, draws)
    places.remove(first)
    second = _turn(places, [chances[place] for place in places], draws)
    return [population[place] for place in sorted((first, second))]


def _turn(places: Sequence[int], chances: Sequence[float], draws: random.Random) -> int:
    """One of the places by its chance; each has the same where all are nought."""
    return draws.choices(places, chances if sum(chances) > 0 else None)[0]


def _cross(view: View, parents: Sequence[HistoryEntry]) -> Ask:
    messages = one_message(
        view.template_or("evoprompt-ga.j2"),
        continues=view.continues,
        form=view.form,
        captions=[single_line(caption) for caption in view.captions],
        history=history_rows(parents[::-1]),
        next_accuracy=next_accuracy(parents),
    )
    return Ask(tuple(messages), 1, tuple(parent.id for parent in parents))


STRATEGY = Strategy(
    name="evoprompt-ga",
    summary="a population of prompts, two of which are crossed and mutated in each question; the best survive",
    ask=ask,
    passes_over=("search.history", "search.keep_first"),
    options=GeneticOptions,
    first=start_templates,
    paper="Connecting Large Language Models with Evolutionary Algorithms Yields Powerful Prompt Optimizers, "
    "arXiv 2309.08532",
)
