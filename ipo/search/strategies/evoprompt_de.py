"""EvoPrompt's differential evolution: an LLM changes what two prompts differ in, and lays it over the best and another.

A child takes the place of the prompt that it was made for where it is better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Literal

from pydantic import Field

from ipo.config import SearchSettings
from ipo.errors import ConfigError
from ipo.prompt import HistoryEntry, text_key
from ipo.search.history import History
from ipo.search.meta_prompt import history_rows, next_accuracy, one_message, single_line
from ipo.search.pools import StartOptions, start_templates
from ipo.search.strategy import Ask, Strategy, View

SMALLEST = 4
"""A prompt, two others that differ, and a donor."""


class DifferentialOptions(StartOptions):
    """Size of the population, and what the changed differences are combined with."""

    population: int = Field(default=10, ge=SMALLEST)
    """Prompts that are replaced one by one."""
    donor: Literal["best", "random"] = "best"
    """Prompt that the changed differences are combined with: the `best` of the population, or a `random` one."""


def population(history: History, size: int) -> list[HistoryEntry]:
    """The members before the next step: the best first prompts or who took their places; the best of all is one."""
    first = history.empty()
    first.append([entry for entry in history if entry.step == 0])
    members = first.ranked()[:size]
    for _, entries in groupby((entry for entry in history if entry.step > 0), key=lambda entry: entry.step):
        places = {member.id: place for place, member in enumerate(members)}
        for entry in entries:
            place = places[entry.parent] if entry.parent is not None else None
            if entry.score is not None and place is not None and history.is_better(entry, members[place]):
                members[place] = entry
    return members


def ask(view: View, options: DifferentialOptions) -> Sequence[Ask]:
    """A question for each of the next members; after the last comes the first again."""
    members, draws = population(view.history, options.population), view.draws()
    if len(members) < SMALLEST:
        raise _too_few(len(members))
    done = len([entry for entry in view.history if entry.step > 0])
    asks = []
    for turn in range(done, done + view.settings.candidates):
        target = members[turn % len(members)]
        one, other, third = draws.sample([member for member in members if member is not target], 3)
        donor = view.history.best() if options.donor == "best" else third
        asks.append(_evolve(view, {"target": target, "one": one, "other": other, "donor": donor}))
    return asks


def _evolve(view: View, roles: Mapping[str, HistoryEntry]) -> Ask:
    """The question for a child; `target`, which it may replace, is the first of the roles."""
    shown = [entry for entry in view.history.ranked()[::-1] if entry in roles.values()]
    messages = one_message(
        view.template_or("evoprompt-de.j2"),
        continues=view.continues,
        form=view.form,
        captions=[single_line(caption) for caption in view.captions],
        history=history_rows(shown),
        next_accuracy=next_accuracy(shown),
        **{role: entry.text for role, entry in roles.items()},
    )
    return Ask(tuple(messages), 1, tuple(dict.fromkeys(entry.id for entry in roles.values())))


def _too_few(count: int) -> ConfigError:
    what = f"evoprompt-de sets out from {SMALLEST} prompts at least, and {count} can be used"
    return ConfigError(what, where="strategy.start", remedy="Give 80, or a file with more")


def _first(settings: SearchSettings, options: DifferentialOptions) -> tuple[str, ...]:
    texts = start_templates(settings, options)
    count = len({text_key(text) for text in texts})
    if count < SMALLEST:
        raise _too_few(count)
    return texts


STRATEGY = Strategy(
    name="evoprompt-de",
    summary="a population of prompts, each of which gives way to a better one made of it, two others and the best",
    ask=ask,
    passes_over=("search.history", "search.keep_first"),
    options=DifferentialOptions,
    first=_first,
    paper="Connecting Large Language Models with Evolutionary Algorithms Yields Powerful Prompt Optimizers, "
    "arXiv 2309.08532",
)
