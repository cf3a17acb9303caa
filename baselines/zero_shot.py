"""Prompt sets that nobody has to learn: the dataset's own prompt, CLIP's 7 and 80 prompts, the best of the 80.

CLIP: Learning Transferable Visual Models From Natural Language Supervision (arXiv 2103.00020); the 7 as CoOp uses them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
from pydantic import field_validator

from ipo.clip.lengths import TextRoom
from ipo.config import Section
from ipo.methods import FitRun, Fitted, Method
from ipo.prompt import CLASS_PLACEHOLDER, Prompt
from ipo.scoring import PromptPredictor, score_prompts
from ipo.screen import counted
from ipo.search.pools import eighty, read_prompts
from ipo.task import FewShotTask, TaskTexts

CLIP_PAPER = "Learning Transferable Visual Models From Natural Language Supervision, arXiv 2103.00020"

EIGHTY = eighty()
"""The 80 prompts that CLIP's authors wrote for ImageNet."""

SEVEN = tuple(Prompt(fill(CLASS_PLACEHOLDER)) for fill in open_clip.SIMPLE_IMAGENET_TEMPLATES)
"""The seven of them that do best together on ImageNet."""


class NoOptions(Section):
    """Nothing to choose."""


class SevenOptions(Section):
    """Choices of `ensemble-7`."""

    hand_crafted: bool = True
    """Add the dataset's own prompt to the seven, as CoOp's code does for all datasets but ImageNet."""


class PromptsOptions(Section):
    """A file of prompts, which is read before anything else is."""

    prompts: Path | None = None
    """File with one prompt a line."""

    @field_validator("prompts")
    @classmethod
    def _can_be_read(cls, prompts: Path | None) -> Path | None:
        if prompts is not None:
            read_prompts(prompts.expanduser())
        return prompts


class ZeroShotOptions(PromptsOptions):
    """Choices of `zero-shot`."""

    prompts: Path | None = None
    """File with one prompt a line, to be used together instead of the dataset's own prompt."""


class SelectOptions(PromptsOptions):
    """Choices of `select-80`."""

    prompts: Path | None = None
    """File with one prompt a line to select from, instead of the 80."""


def usable(room: TextRoom, prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """Those of `prompts` that CLIP can read with all class names that are tested. Raises `PromptError` for none."""
    fitting = room.fitting(prompts)
    if not fitting:
        room.require(prompts)
    return fitting


def report_left_out(run: FitRun, fitting: Sequence[Prompt], prompts: Sequence[Prompt]) -> None:
    """Tell the user where only some of `prompts` are `usable`."""
    if len(fitting) < len(prompts):
        out = f"{len(prompts) - len(fitting)} of {counted(len(prompts), 'prompt')}"
        run.report(f"{out} left out: too long with some class name")


def check_eighty(task: TaskTexts, _options: Section) -> None:
    """Raise `PromptError` where none of the 80 can be used."""
    usable(task.room, EIGHTY)


def check_seven(task: TaskTexts, options: SevenOptions) -> None:
    """Raise `PromptError` where none of the prompts can be used."""
    usable(task.room, seven_prompts(task, options))


def check_pool(task: TaskTexts, options: SelectOptions) -> None:
    """Raise `PromptError` where none of the prompts can be selected."""
    usable(task.room, pool(options))


def own_prompts(task: TaskTexts, options: ZeroShotOptions) -> tuple[Prompt, ...]:
    """The user's prompts, or the dataset's."""
    return read_prompts(options.prompts) if options.prompts else (Prompt(task.hand_crafted_prompt),)


def seven_prompts(task: TaskTexts, options: SevenOptions) -> tuple[Prompt, ...]:
    """The seven, with the dataset's own prompt where asked for."""
    return SEVEN + ((Prompt(task.hand_crafted_prompt),) if options.hand_crafted else ())


def pool(options: SelectOptions) -> tuple[Prompt, ...]:
    """The prompts to select from."""
    return read_prompts(options.prompts) if options.prompts else EIGHTY


def fit_zero_shot(task: FewShotTask, options: ZeroShotOptions, _run: FitRun) -> Fitted:
    """The dataset's hand-crafted prompt, or the user's prompts together."""
    return Fitted({"zero-shot": PromptPredictor(task.clip, own_prompts(task, options))})


def fit_seven(task: FewShotTask, options: SevenOptions, run: FitRun) -> Fitted:
    """The mean of the seven and the dataset's own prompt."""
    prompts = seven_prompts(task, options)
    fitting = usable(task.room, prompts)
    report_left_out(run, fitting, prompts)
    return Fitted({"ensemble-7": PromptPredictor(task.clip, fitting)})


def fit_eighty(task: FewShotTask, _options: NoOptions, run: FitRun) -> Fitted:
    """The mean of the 80."""
    fitting = usable(task.room, EIGHTY)
    report_left_out(run, fitting, EIGHTY)
    return Fitted({"ensemble-80": PromptPredictor(task.clip, fitting)})


def fit_select(task: FewShotTask, options: SelectOptions, run: FitRun) -> Fitted:
    """The prompt with the best training accuracy, the lower loss breaking ties."""
    prompts = usable(task.room, pool(options))
    report_left_out(run, prompts, pool(options))
    scores = score_prompts(task.clip, prompts, task.train, task.classnames)
    best = max(range(len(prompts)), key=lambda index: (scores[index].value, -scores[index].loss))
    score = scores[best]
    figures = {"training": {score.metric: score.value, "loss": score.loss}, "prompts": len(prompts)}
    run.report(f"best of {len(prompts)}: {prompts[best].text}")
    return Fitted({"select-80": PromptPredictor(task.clip, (prompts[best],))}, figures=figures)


def seven_published(dataset: str, _shots: int) -> Mapping[str, Any]:
    """CoOp adds the dataset's own prompt everywhere but on ImageNet, where it is one of the seven's kind."""
    return {"hand_crafted": dataset != "imagenet"}


ZERO_SHOT = Method(
    "zero-shot",
    "the dataset's hand-crafted prompt, or a file of prompts",
    ZeroShotOptions,
    fit_zero_shot,
    CLIP_PAPER,
    check=lambda task, options: task.room.require(own_prompts(task, options)),
    uses=lambda options, _: set() if options.prompts else {"per_dataset_settings"},
    multi_label=True,
)
ENSEMBLE_7 = Method(
    "ensemble-7",
    "mean of CLIP's seven prompts and the dataset's own",
    SevenOptions,
    fit_seven,
    CLIP_PAPER,
    seven_published,
    check_seven,
    uses=lambda options, _: {"per_dataset_settings"} if options.hand_crafted else set(),
    multi_label=True,
)
ENSEMBLE_80 = Method(
    "ensemble-80",
    "mean of CLIP's 80 prompts",
    NoOptions,
    fit_eighty,
    CLIP_PAPER,
    check=check_eighty,
    uses=lambda *_: set(),
    multi_label=True,
)
SELECT_80 = Method(
    "select-80",
    "best of CLIP's 80 prompts by training accuracy",
    SelectOptions,
    fit_select,
    check=check_pool,
    uses=lambda *_: {"labels"},
    multi_label=True,
)
