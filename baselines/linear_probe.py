"""The linear probe that starts from the zero-shot classifier (ZS-LP of CLAP, arXiv 2312.12730).

One weight vector a class, which starts as the feature of the class's prompt before it is brought to unit length, is
trained by cross-entropy on cosines with frozen image features. It knows the classes of the fit alone.
Shape legend: B batch, C classes, D feature width, N images, P prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ipo.clip.base import ClipModel
from ipo.data.uses import Use
from ipo.errors import ConfigError
from ipo.methods import FitRun, Fitted, Means, Method, Restore
from ipo.metrics import count_right
from ipo.scoring import ImageSet, Predictor
from ipo.task import FewShotTask, TaskTexts

from .augment import Augment, TrainingFeatures
from .training import SgdOptions, StepResult, fit_by_sgd
from .zero_shot import ZeroShotOptions, own_prompts

PAPER = "A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models, arXiv 2312.12730"


class ProbeOptions(ZeroShotOptions, SgdOptions):
    """Hyper-parameters of the linear probe: the ones that its authors use on every dataset."""

    only_with: ClassVar[Mapping[str, tuple[str, Any]]] = {"crops": ("augment", "cached")}

    epochs: NonNegativeInt = 300
    """Passes over the training shots; none leave the zero-shot classifier as it is."""
    batch: PositiveInt = 256
    """Images a step; an incomplete last batch of an epoch is dropped, as published."""
    learning_rate: PositiveFloat = 0.1
    """Rate of the first epoch after warm-up."""
    weight_decay: NonNegativeFloat = 0.0
    """L2 penalty of SGD."""
    augment: Augment = "none"
    """Random crops and flips, as published: `cached` draws from a few crops' features, `fly` encodes each anew."""
    crops: PositiveInt = 20
    """Crops of each image to draw from when they are cached."""


@dataclass(frozen=True)
class ClassWeights:
    """A linear classifier (C, D) of the classes of a fit; its rows need not be of unit length."""

    clip: ClipModel
    weights: Tensor
    classnames: tuple[str, ...]

    def logits(self, images: ImageSet, classnames: Sequence[str]) -> Tensor:
        """Logits (N, C) = logit_scale x cosine. Raises `ConfigError` for other classes than those of the fit."""
        require_own_classes(classnames, self.classnames)
        return cosine_logits(self.clip, images.features, self.weights)


def require_own_classes(classnames: Sequence[str], own: tuple[str, ...]) -> None:
    """Raise `ConfigError` where `classnames` are not those of the fit."""
    if tuple(classnames) != own:
        raise ConfigError("a linear classifier knows only the classes it was fitted on")


def cosine_logits(clip: ClipModel, features: Tensor, weights: Tensor) -> Tensor:
    """Logits (B, C) of unit-length features (B, D) under weights (C, D) of any length."""
    return clip.logit_scale * features @ normalize(weights, dim=-1).T


def first_weights(task: FewShotTask, options: ZeroShotOptions) -> Tensor:
    """Weights (C, D) to start from: the mean over the prompts of their features as the text tower gives them."""
    prompts = own_prompts(task, options)
    texts = [prompt.fill(name) for prompt in prompts for name in task.classnames]
    features = task.clip.encode_texts(texts, unit=False)
    return features.view(len(prompts), len(task.classnames), -1).mean(dim=0)


def fit_weights(
    task: FewShotTask, options: ProbeOptions, run: FitRun, penalty: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Weights (C, D) after training by cross-entropy, and by a penalty on the weights where there is one."""
    clip, training = task.clip, TrainingFeatures.of(task, options.augment, options.crops)
    weights = first_weights(task, options).clone().requires_grad_()

    def step(indices: Tensor, generator: torch.Generator) -> StepResult:
        """Gradient of one batch."""
        features, labels = training.batch(indices, generator)  # (B, D), (B,)
        logits = cosine_logits(clip, features, weights)
        loss = cross_entropy(logits, labels)
        if penalty is not None:
            loss = loss + penalty(weights)
        torch.autograd.backward(loss)
        return StepResult(loss.item(), count_right(logits, labels))

    fit_by_sgd({"weights": weights}, step, len(task.train), options, run, task.seed)
    return weights.detach()


def check(task: TaskTexts, options: ZeroShotOptions) -> None:
    """Raise `PromptError` for a prompt that is too long for a class name."""
    task.room.require(own_prompts(task, options))


def uses(options: ZeroShotOptions, _: Means) -> set[Use]:
    """Labels, and the dataset's own prompt where the user gives none."""
    return {"labels"} if options.prompts else {"labels", "per_dataset_settings"}


def fitted(name: str, task: FewShotTask, weights: Tensor, figures: Mapping[str, Any] | None = None) -> Fitted:
    """What a fit of class weights returns."""
    predictor = ClassWeights(task.clip, weights, task.classnames)
    return Fitted({name: predictor}, {"weights": weights}, figures or {}, own_classes_only=True)


def restored(name: str) -> Restore[Any]:
    """How the predictor of a fit of class weights is made anew."""

    def restore(
        clip: ClipModel, classnames: tuple[str, ...], _: Any, learned: Mapping[str, Tensor]
    ) -> Mapping[str, Predictor]:
        return {name: ClassWeights(clip, learned["weights"].to(clip.device), classnames)}

    return restore


def fit(task: FewShotTask, options: ProbeOptions, run: FitRun) -> Fitted:
    """Train the weights by cross-entropy alone. The last epoch's are kept, as published."""
    return fitted("linear-probe", task, fit_weights(task, options, run))


METHOD = Method(
    name="linear-probe",
    summary="a linear classifier of image features that starts from the zero-shot one",
    options=ProbeOptions,
    fit=fit,
    paper=PAPER,
    check=check,
    restore=restored("linear-probe"),
    uses=uses,
)
