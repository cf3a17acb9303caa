"""CARPRT: prompts weighed for each class by images without labels (ICLR 2026).

For each prompt and class: the mean of the largest logits of the images that the prompt puts into the class; a softmax
over the prompts of it, divided by a temperature, are the weights of the class. Nothing is trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import PositiveFloat, field_validator

from ipo.config import LabelFreeRule
from ipo.data.folders import images_below
from ipo.errors import IpoError
from ipo.methods import FitRun, Fitted, Method
from ipo.search.weighing import WeighedPredictor, read_unlabelled
from ipo.task import FewShotTask

from .zero_shot import SelectOptions, check_pool, pool, report_left_out, usable

SHOWN = 5
"""So many prompts with the largest weights stand in the result."""


class WeighingOptions(SelectOptions):
    """What prompts are weighed, and by what."""

    prompts: Path | None = None
    """File with one prompt a line to weigh, instead of the 80."""
    images: Path | None = None
    """Folder of images without labels, at any depth; by default the training images, whose labels are hidden."""
    temperature: PositiveFloat = 1.0
    """The larger, the more alike are the weights."""

    @field_validator("images")
    @classmethod
    def _has_images(cls, images: Path | None) -> Path | None:
        if images is not None:
            try:
                images_below(images.expanduser())
            except IpoError as error:
                raise ValueError(str(error)) from error
        return images


def fit_weighed(rule: LabelFreeRule, task: FewShotTask, options: WeighingOptions, run: FitRun) -> Fitted:
    """Look at the images once; the weights of some class names are made where these are asked for."""
    prompts = usable(task.room, pool(options))
    report_left_out(run, prompts, pool(options))
    images = task.train if options.images is None else read_unlabelled(task.clip, options.images)
    predictor = WeighedPredictor(task.clip, prompts, rule, images.features, options.temperature)
    return Fitted({rule: predictor}, figures=_figures(predictor, task))


def _figures(predictor: WeighedPredictor, task: FewShotTask) -> dict[str, Any]:
    """How many images and prompts there were, and the prompts with the largest weights on average over the classes."""
    means = predictor.weights(task.classnames).mean(dim=1).tolist()
    ranked = sorted(zip(means, predictor.prompts, strict=True), key=lambda pair: -pair[0])
    heaviest = [{"prompt": prompt.text, "weight": round(mean, 6)} for mean, prompt in ranked[:SHOWN]]
    return {"images": len(predictor.images), "prompts": len(predictor.prompts), "heaviest": heaviest}


def fit(task: FewShotTask, options: WeighingOptions, run: FitRun) -> Fitted:
    """A weight for each prompt and class."""
    return fit_weighed("carprt", task, options, run)


METHOD = Method(
    name="carprt",
    summary="the 80 prompts, weighed for each class by images without labels",
    options=WeighingOptions,
    fit=fit,
    paper="CARPRT: Class-Aware Zero-Shot Prompt Reweighting for Vision-Language Models, ICLR 2026",
    check=check_pool,
    uses=lambda *_: {"unlabelled_images"},
)
