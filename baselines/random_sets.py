"""Random sets of CLIP's 80 prompts: how good is an ensemble of so many that nobody chose?

CLIP: Learning Transferable Visual Models From Natural Language Supervision (arXiv 2103.00020), of which the 80 are.
"""

from __future__ import annotations

import random

from pydantic import PositiveInt

from ipo.config import Section
from ipo.draws import Draws
from ipo.errors import ConfigError
from ipo.methods import FitRun, Fitted, Method
from ipo.scoring import PromptPredictor
from ipo.seeds import fit_seed
from ipo.task import FewShotTask, TaskTexts
from ipo_baselines.zero_shot import CLIP_PAPER, EIGHTY, report_left_out, usable


class RandomOptions(Section):
    """Choices of `random-k`."""

    k: PositiveInt = 5
    """Prompts in a set; beside a search it is as many as its ensemble has."""
    draws: PositiveInt = 100
    """Sets that are drawn."""


def random_sets(size: int, k: int, draws: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """`draws` sets of `k` of the numbers below `size`, each without repeats and in order."""
    chance = random.Random(seed)
    return tuple(tuple(sorted(chance.sample(range(size), k))) for _ in range(draws))


def check(task: TaskTexts, options: RandomOptions) -> None:
    """Raise `PromptError` where none of the 80 can be used, and `ConfigError` where fewer than `k` can."""
    fitting = usable(task.room, EIGHTY)
    if options.k > len(fitting):
        what = f"k is {options.k}, and of the 80 prompts {len(fitting)} can be read with all class names"
        raise ConfigError(what, where="options of random-k", remedy="Draw fewer")


def fit(task: FewShotTask, options: RandomOptions, run: FitRun) -> Fitted:
    """The first set, and the distribution of all of them."""
    fitting = usable(task.room, EIGHTY)
    report_left_out(run, fitting, EIGHTY)
    sets = random_sets(len(fitting), options.k, options.draws, fit_seed(task.seed, "random-k", options.k))
    first = PromptPredictor(task.clip, tuple(fitting[index] for index in sets[0]))
    draws = Draws(task.clip, fitting, sets, f"{options.k} of the {len(fitting)} prompts")
    return Fitted({"random-k": first}, draws={"random-k": draws})


METHOD = Method(
    "random-k",
    "random sets of CLIP's 80 prompts: the control for ensembles",
    RandomOptions,
    fit,
    CLIP_PAPER,
    check=check,
    uses=lambda *_: set(),
    multi_label=True,
)
