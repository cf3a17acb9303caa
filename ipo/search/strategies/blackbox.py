"""LLMs as black-box optimizers: good and bad prompts side by side, without scores, from pools that begin anew.

What is shown is a pool: start templates, and what was proposed since the pool began. Step by step the search goes
through the iterations of a reset, the resets of a restart, and the restarts.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import NonNegativeInt, PositiveInt

from ipo.prompt import HistoryEntry, text_key
from ipo.search.meta_prompt import one_message
from ipo.search.pools import StartOptions, start_templates
from ipo.search.strategy import Ask, Strategy, View


class BlackBoxOptions(StartOptions):
    """How long a pool lives, what it begins with, and what of it is shown."""

    restarts: PositiveInt | None = None
    """So many times start templates are drawn; by default as many as the limits of the search leave room for."""
    resets: PositiveInt = 1
    """So many pools begin with the same start templates before others are drawn."""
    iterations: NonNegativeInt = 10
    """Steps from the begin of a pool to its end."""
    good: PositiveInt = 3
    """Prompts shown as good: the best of the pool."""
    bad: NonNegativeInt = 3
    """Prompts shown as bad: the worst of the pool, none of them shown as good; 0 is the positive-only variant."""
    start: str = "first"
    """Start templates: the `first` prompts of the search alone, or with CLIP's `80` or those of a file, one a line."""
    sample: PositiveInt = 80
    """At most so many start templates are drawn for a restart."""


def ask(view: View, options: BlackBoxOptions) -> Sequence[Ask]:
    """One question a step, until the last restart is over; the proposals descend from the good prompts shown."""
    whole = options.resets * options.iterations
    if not whole or (options.restarts and view.step > options.restarts * whole):
        return []
    restart = _begin(view.step, whole)
    members = pool(view, restart, _begin(view.step, options.iterations), options.sample)
    good = members[: options.good]
    bad = members[max(len(good), len(members) - options.bad) :]
    messages = one_message(
        view.template_or("blackbox.j2"),
        continues=view.continues,
        form=view.form,
        good=[entry.text for entry in good],
        bad=[entry.text for entry in bad],
    )
    return [Ask(tuple(messages), view.settings.candidates, tuple(entry.id for entry in good))]


def _begin(step: int, length: int) -> int:
    """The first step of the stretch of so many steps that a step lies in."""
    return step - (step - 1) % length


def pool(view: View, restart: int, reset: int, sample: int) -> list[HistoryEntry]:
    """The pool before a step, best first: start templates, as drawn at `restart`, and what came from `reset` on.

    What was proposed in an earlier pool already, and is so again, is of this pool too, with the score that it has.
    """
    start = [entry for entry in view.history.scored() if entry.step == 0]
    if len(start) > sample:
        start = view.draws(restart).sample(start, sample)
    keys = {text_key(entry.text) for entry in [*start, *(entry for entry in view.history if entry.step >= reset)]}
    return [entry for entry in view.history.ranked() if text_key(entry.text) in keys]


STRATEGY = Strategy(
    name="blackbox",
    summary="good and bad prompts without scores, from pools that begin anew",
    ask=ask,
    passes_over=("captions", "search.history", "search.keep_first"),
    options=BlackBoxOptions,
    first=start_templates,
    paper="Language Models as Black-Box Optimizers for Vision-Language Models, arXiv 2309.05950",
)
