"""CoCoOp: Conditional Prompt Learning for Vision-Language Models (arXiv 2203.05557).

A small net shifts CoOp's context by the image, so every image has its own class features. The reference handles one
image at a time; here a batch is cut into chunks whose gradients add up, which is the same but for rounding.
Shape legend: B batch, C classes, D feature width, M context vectors, N images, W token embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ipo.clip.base import ClipModel
from ipo.methods import FitRun, Fitted, Method
from ipo.metrics import count_right
from ipo.progress import track
from ipo.scoring import ImageSet, Predictor
from ipo.task import FewShotTask

from .augment import TrainingFeatures
from .contexts import NO_LEAD, ContextOptions, Lead, chunk_size, encode_context, first_context, require_context_fits
from .reading import read_context
from .training import StepResult, fit_by_sgd, seeded_torch


class CoCoOpOptions(ContextOptions):
    """Hyper-parameters of CoCoOp."""

    epochs: PositiveInt = 10
    """Passes over the training shots."""
    batch: PositiveInt = 1
    """Images a step."""
    texts_at_once: PositiveInt = 256
    """Texts encoded together; bounds the memory, and changes nothing else."""


def meta_net(clip: ClipModel, seed: int) -> nn.Sequential:
    """Linear, ReLU, linear: image features (B, D) to shifts (B, W) through D/16 hidden units."""
    hidden = max(1, clip.dim // 16)
    with seeded_torch(seed, "meta-net"):
        net = nn.Sequential(nn.Linear(clip.dim, hidden), nn.ReLU(), nn.Linear(hidden, clip.width))
    return net.to(clip.device, clip.vocabulary()[1].dtype)


@dataclass(frozen=True)
class ConditionalPredictor:
    """CLIP with a context (1, M, W) that `net` shifts for each image."""

    clip: ClipModel
    context: Tensor
    net: nn.Module
    texts_at_once: int = 256
    lead: Lead = NO_LEAD
    """What stands before the context, and is not shifted."""

    def logits(self, images: ImageSet, classnames: Sequence[str]) -> Tensor:
        """Logits (N, C), a chunk of images at a time."""
        size = chunk_size(self.texts_at_once, len(classnames))
        parts = torch.split(images.features, size)
        with torch.no_grad():
            return torch.cat([self.chunk_logits(part, classnames) for part in track(parts, "predictions", len(parts))])

    def chunk_logits(self, features: Tensor, classnames: Sequence[str]) -> Tensor:
        """Logits (B, C) of image features (B, D), with gradient."""
        shifted = self.context + self.net(features)[:, None]  # (B, M, W)
        text = encode_context(self.clip, classnames, shifted[:, None], lead=self.lead)  # (B, C, D)
        return self.clip.logit_scale * torch.einsum("bd,bcd->bc", features, text)


def fit(task: FewShotTask, options: CoCoOpOptions, run: FitRun) -> Fitted:
    """Learn context and meta-net on the training shots."""
    return learn("cocoop", task, options, run, NO_LEAD)


def learn(name: str, task: FewShotTask, options: CoCoOpOptions, run: FitRun, lead: Lead) -> Fitted:
    """Learn context and meta-net, and what is to be learned of the `lead` before the context."""
    clip = task.clip
    context = first_context(clip, options, task.seed)
    net = meta_net(clip, task.seed)
    model = ConditionalPredictor(clip, context, net, options.texts_at_once, lead)
    training = TrainingFeatures.of(task, options.augment, options.crops)
    size = chunk_size(options.texts_at_once, len(task.classnames))

    def step(indices: Tensor, generator: torch.Generator) -> StepResult:
        """Gradient of one batch, chunk by chunk."""
        loss, hits = 0.0, 0
        whole = training.batch(indices, generator)
        for features, labels in zip(*(torch.split(part, size) for part in whole), strict=True):
            logits = model.chunk_logits(features, task.classnames)
            part_loss = cross_entropy(logits, labels, reduction="sum") / len(indices)
            torch.autograd.backward(part_loss)
            loss, hits = loss + part_loss.item(), hits + count_right(logits, labels)
        return StepResult(loss, hits)

    parameters = {"context": context, **{f"meta_net.{key}": value for key, value in net.named_parameters()}}
    parameters |= lead.parameters()
    fit_by_sgd(parameters, step, len(task.train), options, run, task.seed)
    learned = {key: value.detach() for key, value in parameters.items()}
    net.requires_grad_(False)
    predictor = ConditionalPredictor(clip, learned["context"], net, options.texts_at_once, lead.detach())
    return Fitted({name: predictor}, learned, {"reading": read_context(clip, learned["context"][0])})


def restore(
    clip: ClipModel, _classnames: tuple[str, ...], options: CoCoOpOptions, learned: Mapping[str, Tensor]
) -> Mapping[str, Predictor]:
    """The predictor of a fit by what it learned."""
    net = meta_net(clip, seed=0).requires_grad_(False)
    net.load_state_dict({name: learned[f"meta_net.{name}"] for name in net.state_dict()})
    return {"cocoop": ConditionalPredictor(clip, learned["context"].to(clip.device), net, options.texts_at_once)}


METHOD = Method(
    name="cocoop",
    summary="context vectors shifted by each image",
    options=CoCoOpOptions,
    fit=fit,
    paper="Conditional Prompt Learning for Vision-Language Models, arXiv 2203.05557",
    check=require_context_fits,
    restore=restore,
    uses=lambda *_: {"labels"},
)
