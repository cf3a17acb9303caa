"""ProAPO's first stage: which prompts of a pool do best together. No LLM is asked.

A set is a candidate as a prompt is. Each epoch adds to the best sets, removes from them, replaces in them and crosses
them, and draws random ones; no set is scored twice. The best of all epochs go on, chosen by the training images.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Literal

from pydantic import PositiveInt

from ipo.config import LabelRule
from ipo.prompt import HistoryEntry
from ipo.search.history import FOR_ANY_METRIC, RULES, History
from ipo.search.pools import StartOptions, start_templates
from ipo.search.strategy import Ask, Strategy, View

Operator = Literal["add", "remove", "replace", "mutate", "cross"]
Members = tuple[int, ...]


class SubsetOptions(StartOptions):
    """The pool, and how its sets are searched."""

    epochs: PositiveInt = 8
    """Steps, where the limits of the search leave room for them."""
    top: PositiveInt = 4
    """Best sets that an epoch sets out from."""
    tries: PositiveInt = 8
    """Sets that an operator makes: of each of the best sets; at all for `mutate`, and twice as many for `cross`."""
    operators: tuple[Operator, ...] = ("add", "remove", "replace", "mutate", "cross")
    """What an epoch does: `add` a prompt, `remove` one, `replace` one; `mutate` is a random set, of more prompts in
    each epoch, and `cross` a mixture of two of the best sets."""
    fitness: LabelRule = "loss"
    """Rule by which the best sets are those that go on; the result is chosen by `search.select`."""


def ask(view: View, options: SubsetOptions) -> Sequence[Ask]:
    """The new sets of an epoch, those of the same parents together; none after the last epoch."""
    if view.step > options.epochs:
        return []
    pool = [entry.id for entry in view.history.scored() if entry.members is None]
    best = best_sets(view.history, options.fitness, options.top)
    known = {members_of(entry) for entry in view.history}
    asks = []
    for parents, made in _offspring(pool, best, view.step, options, view.draws()):
        new = sorted({tuple(sorted(one)) for one in made} - known)
        known.update(new)
        if new:
            asks.append(Ask(sets=tuple(new), parents=tuple(entry.id for entry in parents)))
    return asks


def members_of(entry: HistoryEntry) -> Members:
    """The ids of the prompts of a set; a prompt is a set of itself."""
    return entry.members or (entry.id,)


def best_sets(history: History, fitness: LabelRule, count: int) -> list[HistoryEntry]:
    """The best sets so far, prompts alone among them, best first; in which order they were scored plays no part."""
    scored = [(RULES[fitness](entry.score), entry) for entry in history if entry.score is not None]
    scored.sort(key=lambda pair: members_of(pair[1]))
    return [entry for _, entry in sorted(scored, key=lambda pair: pair[0], reverse=True)[:count]]


def _offspring(
    pool: Sequence[int], best: Sequence[HistoryEntry], epoch: int, options: SubsetOptions, draws: random.Random
) -> Iterator[tuple[Sequence[HistoryEntry], list[Members]]]:
    """Sets with those that they come from."""
    for entry in best:
        inside = members_of(entry)
        outside = [member for member in pool if member not in inside]
        for operator in ("add", "remove", "replace"):
            if operator in options.operators:
                yield [entry], _some(_neighbours(operator, inside, outside), options.tries, draws)
    if "mutate" in options.operators:
        yield [], [tuple(draws.sample(pool, min(2 + epoch, len(pool)))) for _ in range(options.tries)]
    if "cross" in options.operators and len(best) > 1:
        for _ in range(2 * options.tries):
            pair = draws.sample(best, 2)
            yield pair, [_crossed(members_of(pair[0]), members_of(pair[1]), draws)]


def _neighbours(operator: str, inside: Members, outside: Sequence[int]) -> list[Members]:
    """All sets that differ from one by a single addition, removal or replacement."""
    if operator == "add":
        return [(*inside, new) for new in outside]
    without = [tuple(member for member in inside if member != gone) for gone in inside]
    if operator == "remove":
        return [one for one in without if one]
    return [(*one, new) for one, new in product(without, outside)]


def _some(sets: list[Members], count: int, draws: random.Random) -> list[Members]:
    return draws.sample(sets, min(count, len(sets)))


def _crossed(one: Members, other: Members, draws: random.Random) -> Members:
    """What both have, and each of the rest by the toss of a coin; one prompt at least."""
    either = sorted({*one, *other})
    kept = tuple(member for member in either if (member in one and member in other) or draws.random() < 0.5)
    return kept or (draws.choice(either),)


def _widest(options: SubsetOptions) -> int:
    each = {"add": options.top, "remove": options.top, "replace": options.top, "mutate": 1, "cross": 2}
    return options.tries * sum(each[operator] for operator in {*options.operators})


STRATEGY = Strategy(
    name="subset",
    summary="which prompts of a pool do best together; no LLM is asked",
    ask=ask,
    one_label=lambda options: options.fitness not in FOR_ANY_METRIC,
    passes_over=("search.candidates", "search.history", "search.keep_first"),
    options=SubsetOptions,
    first=start_templates,
    asks_llm=lambda _: False,
    widest=_widest,
    paper="ProAPO: Progressively Automatic Prompt Optimization for Visual Classification, arXiv 2502.19844",
)
