"""PLOT: Prompt Learning with Optimal Transport for Vision-Language Models (arXiv 2210.01253).

Several prompts a class are matched with the patches of an image by optimal transport, and their cosines are
weighted by the plan. Two loops: inside, the plan for fixed features by Sinkhorn's algorithm, without gradient; outside,
a step of the contexts for a fixed plan.
Shape legend: B images of a part, C classes, D feature width, K prompts of a class, M context vectors, N images, P
patches, W token embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ipo.clip.base import ClipModel
from ipo.errors import ConfigError
from ipo.methods import FitRun, Fitted, Method
from ipo.metrics import count_right
from ipo.progress import track
from ipo.scoring import ImageSet
from ipo.task import FewShotTask, PatchSource, TaskTexts

from .contexts import RANDOM, StartOptions, chunk_size, first_context, require_context_fits
from .coop import published as coop_epochs
from .reading import read_context
from .training import Step, StepResult, fit_by_sgd
from .transport import transport_plans, transported


class PlotOptions(StartOptions):
    """Hyper-parameters of PLOT."""

    prompts: PositiveInt = 4
    """Contexts of all classes; from words they all start alike and stay alike."""
    init: str = RANDOM
    """Words whose token embeddings the contexts start from, or `random` for N(0, 0.02^2)."""
    epsilon: PositiveFloat = 0.1
    """Weight of the plan's entropy: the larger, the more alike all its entries."""
    iterations: PositiveInt = 100
    """Most iterations for a plan."""
    tolerance: NonNegativeFloat = 0.01
    """Mean change of the row factors at which a plan is good enough."""
    whole_image: bool = False
    """Add the cosine of the whole image and the mean prompt, as the paper does on ImageNet."""
    pairs_at_once: PositiveInt = 2048
    """Pairs of an image and a class whose plans are made together; bounds the memory, and changes nothing else."""


@dataclass(frozen=True)
class PatchMatcher:
    """Logits of images under the prompts of classes, by transport between patches and prompts."""

    clip: ClipModel
    options: PlotOptions

    def logits(self, tokens: Tensor, text: Tensor) -> Tensor:
        """Logits (B, C) of features (B, 1 + P, D) of images and their patches under raw text features (K, C, D)."""
        patches, prompts = normalize(tokens[:, 1:], dim=-1), normalize(text, dim=-1)
        cosines = torch.einsum("bpd,kcd->bcpk", patches, prompts)
        options = self.options
        plans = transport_plans(1 - cosines, options.epsilon, options.iterations, options.tolerance)
        scores = transported(cosines, plans)
        if options.whole_image:
            scores = scores + normalize(tokens[:, 0], dim=-1) @ normalize(text.mean(dim=0), dim=-1).T
        return self.clip.logit_scale * scores

    def images_at_once(self, classes: int) -> int:
        """Images that are matched with so many classes together."""
        return chunk_size(self.options.pairs_at_once, classes)


@dataclass(frozen=True)
class PatchPredictor:
    """CLIP with learned contexts (K, M, W) that are matched with the patches of an image."""

    matcher: PatchMatcher
    contexts: Tensor
    source: PatchSource

    def logits(self, images: ImageSet, classnames: Sequence[str]) -> Tensor:
        """Logits (N, C) = logit_scale x transported cosine, some images at a time."""
        patches = self.source.load(images.items)
        parts = torch.split(torch.arange(len(images)), self.matcher.images_at_once(len(classnames)))
        with torch.no_grad():
            text = raw_texts(self.matcher.clip, self.contexts, classnames)
            parts_done = [
                self.matcher.logits(patches.take(part.tolist()).to(text), text)
                for part in track(parts, "predictions", len(parts))
            ]
        return torch.cat(parts_done)


def raw_texts(clip: ClipModel, contexts: Tensor, classnames: Sequence[str]) -> Tensor:
    """Raw text features (K, C, D) of contexts (K, M, W), with gradient."""
    return clip.encode_embeddings(classnames, contexts[:, None], unit=False)


TextPenalty = Callable[[Tensor], Tensor]
"""A further loss of raw text features (K, C, D)."""


def matching_step(
    task: FewShotTask, matcher: PatchMatcher, contexts: Tensor, penalty: TextPenalty | None = None
) -> Step:
    """A step on patch features. Texts are encoded once, whatever the number of parts that a batch is matched in."""
    labels, patches = task.train.labels, source_of(task).load(task.train.items)
    size = matcher.images_at_once(len(task.classnames))

    def step(indices: Tensor, _generator: torch.Generator) -> StepResult:
        """Gradient of one batch, part by part."""
        text = raw_texts(task.clip, contexts, task.classnames)
        held = text.detach().requires_grad_()
        loss, hits = 0.0, 0
        for part in torch.split(indices, size):
            own = labels[part.to(labels.device)]
            logits = matcher.logits(patches.take(part.tolist()).to(held), held)
            part_loss = cross_entropy(logits, own, reduction="sum") / len(indices)
            torch.autograd.backward(part_loss)
            loss, hits = loss + part_loss.item(), hits + count_right(logits, own)
        if penalty is not None:
            more = penalty(held)
            torch.autograd.backward(more)
            loss += more.item()
        torch.autograd.backward(text, held.grad)
        return StepResult(loss, hits)

    return step


def source_of(task: FewShotTask) -> PatchSource:
    """Where patch features come from. Raises `ConfigError` for a task that has none."""
    if task.patches is None:
        raise ConfigError("the task has no patch features", remedy="A method has to declare that it needs them")
    return task.patches


def fit_contexts(
    name: str, task: FewShotTask, options: PlotOptions, run: FitRun, penalty: TextPenalty | None = None
) -> Fitted:
    """Learn the contexts on the patches of the training shots, with a further loss of texts if any."""
    matcher = PatchMatcher(task.clip, options)
    contexts = first_context(task.clip, options, task.seed, options.prompts)
    step = matching_step(task, matcher, contexts, penalty)
    fit_by_sgd({"context": contexts}, step, len(task.train), options, run, task.seed)
    learned = contexts.detach()
    predictor = PatchPredictor(matcher, learned, source_of(task))
    return Fitted({name: predictor}, {"context": learned}, {"reading": read_context(task.clip, learned[0])})


def fit(task: FewShotTask, options: PlotOptions, run: FitRun) -> Fitted:
    """Learn the contexts on the patches of the training shots."""
    return fit_contexts("plot", task, options, run)


def check(task: TaskTexts, options: PlotOptions) -> None:
    """Raise `ConfigError` for contexts that do not fit around the class names."""
    require_context_fits(task, options)


def published(dataset: str, shots: int) -> Mapping[str, Any]:
    """Epochs of CoOp; the whole image has a part on ImageNet alone."""
    return {**coop_epochs(dataset, shots), **({"whole_image": True} if dataset == "imagenet" else {})}


METHOD = Method(
    name="plot",
    summary="several learned contexts, matched with the patches of an image by optimal transport",
    options=PlotOptions,
    fit=fit,
    paper="PLOT: Prompt Learning with Optimal Transport for Vision-Language Models, arXiv 2210.01253",
    published=published,
    check=check,
    needs_patches=lambda _: True,
    uses=lambda *_: {"labels"},
)
