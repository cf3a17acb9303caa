"""Random words that all classes share: the control that descriptions and searches have to beat.

Waffling around for Performance: Visual Classification with Random Words and Broad Concepts (WaffleCLIP, arXiv
2306.07282). A text is "a photo of a <CLASS>, which has ...", with random words or random letters in the place of a
description; words and letters are as many and as long as those of the class names are on average.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from statistics import fmean

from pydantic import NonNegativeInt, PositiveInt

from ipo.config import Section
from ipo.draws import Draws
from ipo.methods import FitRun, Fitted, Method
from ipo.prompt import CLASS_PLACEHOLDER, PLAIN_PROMPT, Prompt
from ipo.scoring import Aggregate, PromptPredictor
from ipo.search.words import unfit_words, vocabulary
from ipo.seeds import fit_seed
from ipo.task import FewShotTask, TaskTexts
from ipo_baselines.zero_shot import report_left_out, usable

PAPER = "Waffling around for Performance, arXiv 2306.07282"


class WaffleOptions(Section):
    """Choices of `waffle`."""

    pairs: NonNegativeInt = 15
    """Pairs of texts, one with random words and one with random letters; none of them is the plain prompt alone."""
    reps: PositiveInt = 7
    """Draws whose mean accuracy is told; the first of them stands for the method."""
    aggregate: Aggregate = "score_mean"
    """`score_mean`, the mean of the cosines with each text, or `feature_mean`, the cosine with their mean direction."""


def waffle_prompts(classnames: Sequence[str], pairs: int, seed: int) -> tuple[Prompt, ...]:
    """`pairs` of prompts with random words and random letters in turn; the plain prompt for none."""
    draws = random.Random(seed)
    junk = [make(classnames, draws) for _ in range(pairs) for make in (random_words, random_letters)]
    return tuple(Prompt(f"a photo of a {CLASS_PLACEHOLDER}, which has {text}.") for text in junk) or (
        Prompt(PLAIN_PROMPT),
    )


def random_words(classnames: Sequence[str], draws: random.Random) -> str:
    """As many words as a class name has on average, each cut to the average length of the words of class names."""
    count = max(1, round(fmean(len(name.split()) for name in classnames)))
    length = max(1, round(fmean(fmean(map(len, name.split())) for name in classnames)))
    return " ".join(_word(length, draws) for _ in range(count))


def _word(length: int, draws: random.Random) -> str:
    while unfit_words(word := draws.choice(vocabulary())[:length]):
        pass
    return word


def random_letters(classnames: Sequence[str], draws: random.Random) -> str:
    """Groups of letters with commas between them: as many groups as a class name has words, of about their length."""
    groups = round(fmean(len(name.split()) - 1 for name in classnames)) + 1
    longest = -(-sum(max(map(len, name.split())) for name in classnames) // len(classnames))
    each = longest // groups + 1
    return ", ".join("".join(draws.choices(string.ascii_lowercase, k=each)) for _ in range(groups))


def waffle_predictor(task: TaskTexts, options: WaffleOptions, rep: int = 0) -> PromptPredictor:
    """One draw. Raises `PromptError` where CLIP can read none of its prompts with some class name."""
    prompts = waffle_prompts(task.classnames, options.pairs, fit_seed(task.seed, "waffle", rep))
    return PromptPredictor(task.clip, usable(task.room, prompts), options.aggregate)


def check(task: TaskTexts, options: WaffleOptions) -> None:
    """Raise `PromptError` where none of the prompts of a draw can be used."""
    for rep in range(options.reps):
        waffle_predictor(task, options, rep)


def fit(task: FewShotTask, options: WaffleOptions, run: FitRun) -> Fitted:
    """The first draw, and the others beside it."""
    each = [waffle_predictor(task, options, rep) for rep in range(options.reps)]
    drawn = waffle_prompts(task.classnames, options.pairs, fit_seed(task.seed, "waffle", 0))
    report_left_out(run, each[0].prompts, drawn)
    prompts = tuple(dict.fromkeys(prompt for one in each for prompt in one.prompts))
    place = {prompt: index for index, prompt in enumerate(prompts)}
    sets = tuple(tuple(place[prompt] for prompt in one.prompts) for one in each)
    what = f"{options.pairs} pairs of random words and letters"
    draws = Draws(task.clip, prompts, sets, what, aggregate=options.aggregate)
    return Fitted({"waffle": each[0]}, draws={"waffle": draws})


METHOD = Method(
    "waffle",
    "random words that all classes share: the control for descriptions",
    WaffleOptions,
    fit,
    PAPER,
    check=check,
    uses=lambda *_: set(),
    multi_label=True,
)
