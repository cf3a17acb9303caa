"""Texts of its own for each class, as a language model wrote them once: DCLIP and CuPL, with what tests their meaning.

DCLIP: Visual Classification via Description from Large Language Models (arXiv 2210.07183); CuPL: What does a platypus
look like? (arXiv 2209.03320). `ipo describe` writes the file that they read; the fit asks nobody.

Beside each stand controls, as of WaffleCLIP (arXiv 2306.07282): the descriptions of another class (`swapped`), their
words in disorder (`scrambled`), and random words that all classes share (`waffle`). What the method is better by than
they are is what the meaning of the descriptions is worth.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import field_validator

from ipo.clip.base import ClipModel
from ipo.config import Section
from ipo.descriptions import Descriptions, read_descriptions
from ipo.descriptions.clauses import clause
from ipo.errors import DataError
from ipo.methods import FitRun, Fitted, Method
from ipo.scoring import Aggregate, ClassTextPredictor, Predictor
from ipo.screen import counted
from ipo.seeds import fit_seed
from ipo.store.inputs import read_json_input
from ipo.task import FewShotTask, TaskTexts
from ipo_baselines.waffle import WaffleOptions, waffle_predictor

Lists = list[list[str]]
"""Descriptions of each class, in the order of the class names."""

Change = Callable[[Sequence[str], Lists, random.Random], Lists]
"""What a control makes of the descriptions of some classes."""

Build = Callable[[str, Sequence[str]], list[str]]
"""From a class name and its descriptions to what CLIP reads."""


class DescriptionsOption(Section):
    """The file that descriptions come from."""

    descriptions: Path
    """File with the descriptions of each class (JSON), such as `ipo describe` writes."""

    @field_validator("descriptions")
    @classmethod
    def _can_be_read(cls, descriptions: Path) -> Path:
        """A file that is none is told before anything else is done."""
        read_json_input(descriptions.expanduser(), "descriptions", remedy="Make them with `ipo describe`")
        return descriptions


class ClassTextOptions(DescriptionsOption):
    """The file, and what is tested beside it."""

    controls: bool = True
    """Test the descriptions of other classes, their words in disorder and random words as well."""


class DclipOptions(ClassTextOptions):
    """Choices of `dclip`."""

    aggregate: Aggregate = "score_mean"
    """`score_mean`, the mean of the cosines with each text, or `feature_mean`, the cosine with their mean direction."""


class CuplOptions(ClassTextOptions):
    """Choices of `cupl`."""

    aggregate: Aggregate = "feature_mean"
    """`feature_mean`, the cosine with the mean direction of the texts, or `score_mean`, the mean of the cosines."""


def dclip_texts(classname: str, descriptions: Sequence[str]) -> list[str]:
    """`lemur, which has long tail` for each description; the name alone where there is none."""
    return [f"{classname}, {clause(text)}" for text in descriptions] or [classname]


def cupl_texts(_classname: str, descriptions: Sequence[str]) -> list[str]:
    """The descriptions as they stand: each is a sentence that names its class."""
    return list(descriptions)


def unchanged(_names: Sequence[str], lists: Lists, _draws: random.Random) -> Lists:
    """The descriptions of each class."""
    return lists


def swapped(names: Sequence[str], lists: Lists, draws: random.Random) -> Lists:
    """Each class has the descriptions of another one, whose name in them becomes its own."""
    order = draws.sample(range(len(names)), len(names))
    donors = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    return [_renamed(lists[donors[index]], names[donors[index]], name) for index, name in enumerate(names)]


def _renamed(texts: Sequence[str], other: str, name: str) -> list[str]:
    return [_named(other).sub(lambda _: name, text) for text in texts]


def scrambled(names: Sequence[str], lists: Lists, draws: random.Random) -> Lists:
    """The words of a class's descriptions in disorder, dealt to as many of the same lengths; its name is one word."""
    return [_scrambled(_named(name), own, draws) for name, own in zip(names, lists, strict=True)]


def _scrambled(name: re.Pattern[str], texts: Sequence[str], draws: random.Random) -> list[str]:
    rows = [name.sub(lambda found: found[0].replace(" ", "\0"), text).split(" ") for text in texts]
    words = [word.rstrip(".").replace("\0", " ") for row in rows for word in row]
    draws.shuffle(words)
    dealt = iter(words)
    return [" ".join(next(dealt) for _ in row) for row in rows]


def _named(classname: str) -> re.Pattern[str]:
    return re.compile(rf"\b{re.escape(classname)}", re.IGNORECASE)


CONTROLS: dict[str, Change] = {"swapped": swapped, "scrambled": scrambled}


@dataclass(frozen=True)
class TextSource:
    """The texts of any classes, made of a file of descriptions; those that CLIP cannot read are left out."""

    clip: ClipModel
    descriptions: Descriptions
    build: Build
    change: Change = unchanged
    seed: int = 0

    def __call__(self, classnames: Sequence[str]) -> Lists:
        """The texts of each class. Raises `DataError` for a class that the file lacks or CLIP can read no text of."""
        lists = [list(self.descriptions[name]) for name in classnames]
        changed = self.change(classnames, lists, random.Random(self.seed))
        texts = [self.fitting(self.build(name, own)) for name, own in zip(classnames, changed, strict=True)]
        if self.change is not unchanged:
            return [own or self.build(name, []) or [name] for name, own in zip(classnames, texts, strict=True)]
        for name, own in zip(classnames, texts, strict=True):
            if not own:
                what = f"CLIP can read no description of '{name}'"
                raise DataError(what, where=self.descriptions.where, remedy="Shorten them, or add some")
        return texts

    def fitting(self, texts: Sequence[str]) -> list[str]:
        """Those texts that CLIP can read to their end."""
        return [text for text in texts if self.clip.token_count(text) <= self.clip.context_length]

    def left_out(self, classnames: Sequence[str]) -> tuple[int, int]:
        """How many texts of these classes CLIP cannot read, and how many there are."""
        texts = [text for name in classnames for text in self.build(name, self.descriptions[name])]
        return len(texts) - len(self.fitting(texts)), len(texts)


def check_dclip(task: TaskTexts, options: DclipOptions) -> None:
    """Raise `DataError` where the file lacks a class that is tested, or all its texts are too long."""
    _check(task, options, dclip_texts)


def check_cupl(task: TaskTexts, options: CuplOptions) -> None:
    """Raise `DataError` where a class that is tested has no text in the file, or none that CLIP can read."""
    _check(task, options, cupl_texts)


def _check(task: TaskTexts, options: ClassTextOptions, build: Build) -> None:
    descriptions = read_descriptions(options.descriptions, task.dataset)
    source = TextSource(task.clip, descriptions, build)

    def require(names: Sequence[str]) -> None:
        descriptions.require(names, may_be_empty=build is dclip_texts)
        source(names)

    require(task.classnames)
    task.room.require_of_names(require)


def fit_dclip(task: FewShotTask, options: DclipOptions, run: FitRun) -> Fitted:
    """The mean of the cosines with a class name and one description each."""
    return _fit("dclip", task, options, run, dclip_texts, options.aggregate)


def fit_cupl(task: FewShotTask, options: CuplOptions, run: FitRun) -> Fitted:
    """The cosine with the mean direction of the sentences about a class."""
    return _fit("cupl", task, options, run, cupl_texts, options.aggregate)


def _fit(
    name: str, task: FewShotTask, options: ClassTextOptions, run: FitRun, build: Build, aggregate: Aggregate
) -> Fitted:
    descriptions = read_descriptions(options.descriptions, task.dataset)
    own = TextSource(task.clip, descriptions, build)
    predictors: dict[str, Predictor] = {name: ClassTextPredictor(task.clip, own, aggregate)}
    if options.controls:
        for word, change in CONTROLS.items():
            source = TextSource(task.clip, descriptions, build, change, fit_seed(task.seed, word))
            predictors[f"{name}-{word}"] = ClassTextPredictor(task.clip, source, aggregate)
        predictors["waffle"] = waffle_predictor(task, WaffleOptions())
    figures = _figures(task, descriptions, own, run)
    return Fitted(predictors, figures={"descriptions": figures}, uses={"waffle": []})


def _figures(task: FewShotTask, descriptions: Descriptions, source: TextSource, run: FitRun) -> dict[str, object]:
    """What the file holds of the classes of the fit; what is odd is reported."""
    too_long, every = source.left_out(task.classnames)
    if too_long:
        run.report(f"{too_long} of {counted(every, 'text')} left out: too long for CLIP")
    empty = [name for name in task.classnames if not descriptions[name]]
    if empty:
        run.report(f"{counted(len(empty), 'class')} without a description, such as '{empty[0]}': the name stands alone")
    return {"digest": descriptions.digest, "texts": every, "too_long": too_long, "classes_without": len(empty)}


DCLIP = Method(
    "dclip",
    "class names with descriptions that an LLM wrote, by the mean of their cosines",
    DclipOptions,
    fit_dclip,
    "Visual Classification via Description from Large Language Models, arXiv 2210.07183",
    check=check_dclip,
    uses=lambda *_: {"llm_saw_class_names"},
    multi_label=True,
)
CUPL = Method(
    "cupl",
    "sentences that an LLM wrote about each class, by their mean direction",
    CuplOptions,
    fit_cupl,
    "What does a platypus look like? Generating customized prompts, arXiv 2209.03320",
    check=check_cupl,
    uses=lambda *_: {"llm_saw_class_names"},
    multi_label=True,
)
