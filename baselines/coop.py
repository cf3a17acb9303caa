"""CoOp: Learning to Prompt for Vision-Language Models (arXiv 2109.01134).

M context vectors around the class names are learned by cross-entropy on a few shots under a frozen CLIP.
Shape legend: B batch, C classes, D feature width, M context vectors, N images, W token embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ipo.clip.base import ClipModel
from ipo.errors import ConfigError
from ipo.methods import FitRun, Fitted, Method
from ipo.scoring import ImageSet, Predictor
from ipo.task import FewShotTask, TaskTexts

from .augment import TrainingFeatures
from .contexts import NO_LEAD, ContextOptions, Lead, Position, encode_context, first_context, require_context_fits
from .reading import read_context
from .training import StepResult, fit_by_sgd


class CoOpOptions(ContextOptions):
    """Hyper-parameters of CoOp: those of the base-to-new runs; its few-shot curves have init=random and n_ctx=16."""

    class_specific: bool = False
    """A context for each class instead of one for all; such a fit knows its own classes only."""
    position: Position = "end"
    """Place of the class name: after the context, in its middle, or before it."""


@dataclass(frozen=True)
class ContextPredictor:
    """CLIP with a learned context (1 or C, M, W) in the place of a prompt."""

    clip: ClipModel
    context: Tensor
    position: Position = "end"
    classnames: tuple[str, ...] | None = None
    """The classes of a class-specific context."""
    lead: Lead = NO_LEAD
    """What stands before the context."""

    def logits(self, images: ImageSet, classnames: Sequence[str]) -> Tensor:
        """Logits (N, C) = logit_scale x cosine."""
        if self.classnames is not None and tuple(classnames) != self.classnames:
            raise ConfigError("class-specific context knows only the classes it was fitted on")
        with torch.no_grad():
            text = encode_context(self.clip, classnames, self.context[None], self.position, self.lead)[0]
        return self.clip.logit_scale * images.features @ text.T


def published(dataset: str, shots: int) -> Mapping[str, Any]:
    """Epochs of the paper: 50 for one shot, 100 for two and four, 200 from eight on; always 50 on ImageNet."""
    if dataset == "imagenet" or shots == 1:
        return {"epochs": 50}
    return {"epochs": 100 if shots <= 4 else 200}


def check(task: TaskTexts, options: CoOpOptions) -> None:
    """Raise `ConfigError` for a context that does not fit around the class names."""
    require_context_fits(task, options, options.position, options.class_specific)


def fit(task: FewShotTask, options: CoOpOptions, run: FitRun) -> Fitted:
    """Learn the context on the training shots. The last epoch's is kept, as published."""
    return learn("coop", task, options, run, NO_LEAD)


def learn(name: str, task: FewShotTask, options: CoOpOptions, run: FitRun, lead: Lead) -> Fitted:
    """Learn the context, and what is to be learned of the `lead` before it."""
    clip = task.clip
    rows = len(task.classnames) if options.class_specific else 1
    context = first_context(clip, options, task.seed, rows)
    training = TrainingFeatures.of(task, options.augment, options.crops)

    def step(indices: Tensor, generator: torch.Generator) -> StepResult:
        """Gradient of one batch."""
        features, labels = training.batch(indices, generator)  # (B, D), (B,)
        text = encode_context(clip, task.classnames, context[None], options.position, lead)[0]  # (C, D)
        logits = clip.logit_scale * features @ text.T
        loss = cross_entropy(logits, labels)
        torch.autograd.backward(loss)
        return StepResult(loss.item(), int((logits.argmax(dim=-1) == labels).sum()))

    parameters = {"context": context, **lead.parameters()}
    fit_by_sgd(parameters, step, len(task.train), options, run, task.seed)
    classnames = task.classnames if options.class_specific else None
    predictor = ContextPredictor(clip, context.detach(), options.position, classnames, lead.detach())
    return Fitted(
        {name: predictor},
        learned={key: value.detach() for key, value in parameters.items()},
        figures={} if options.class_specific else {"reading": read_context(clip, predictor.context[0])},
        own_classes_only=options.class_specific,
    )


def restore(
    clip: ClipModel, classnames: tuple[str, ...], options: CoOpOptions, learned: Mapping[str, Tensor]
) -> Mapping[str, Predictor]:
    """The predictor of a fit by what it learned."""
    own = classnames if options.class_specific else None
    return {"coop": ContextPredictor(clip, learned["context"].to(clip.device), options.position, own)}


METHOD = Method(
    name="coop",
    summary="context vectors learned by gradient",
    options=CoOpOptions,
    fit=fit,
    paper="Learning to Prompt for Vision-Language Models, arXiv 2109.01134",
    published=published,
    check=check,
    restore=restore,
    uses=lambda *_: {"labels"},
)
