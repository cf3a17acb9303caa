"""Bayesian Prompt Learning for Image-Language Model Generalization (arXiv 2210.02390; its code calls it VPT).

CoOp's context plus one Gaussian residual that is shared by all context vectors; the residual's distribution is learned
by variational inference against a standard normal prior, for all images alike or conditioned on the image.
At test the reference draws new samples for every image; here all images share one seeded draw, so that a prediction
does not depend on what was predicted before.
Shape legend: B batch, C classes, D feature width, M context vectors, N images, S samples, W token embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import log_softmax
from torch.utils.checkpoint import checkpoint

from ipo.clip.base import ClipModel
from ipo.errors import RunError
from ipo.methods import FitRun, Fitted, Method
from ipo.metrics import count_right
from ipo.progress import track
from ipo.scoring import ImageSet, Predictor
from ipo.task import FewShotTask

from .augment import TrainingFeatures
from .contexts import ContextOptions, chunk_size, encode_context, first_context, require_context_fits
from .reading import read_context
from .residuals import ConditionalResidual, Residual, kl_to_standard_normal
from .training import Step, StepResult, fit_by_sgd, seeded_generator, seeded_torch

PUBLISHED = {
    "caltech101": (20, 20),
    "oxford_pets": (40, 20),
    "stanford_cars": (20, 40),
    "oxford_flowers": (10, 40),
    "food101": (20, 20),
    "fgvc_aircraft": (10, 10),
    "sun397": (20, 10),
    "dtd": (40, 10),
    "eurosat": (20, 60),
    "ucf101": (5, 20),
    "imagenet": (10, 10),
}
"""Samples and epochs of each dataset in the paper's base-to-new runs."""


class BayesianOptions(ContextOptions):
    """Hyper-parameters of Bayesian Prompt Learning."""

    only_with = {**ContextOptions.only_with, "hidden": ("conditional", True)}

    epochs: PositiveInt = 10
    """Passes over the training shots."""
    batch: PositiveInt = 1
    """Images a step."""
    conditional: bool = False
    """Condition the residual on the image, by two small nets."""
    hidden: PositiveInt | None = None
    """Hidden units of these nets; half the feature width, as in the reference code."""
    log_variance: float | None = None
    """Where the log-variance of the residual starts; uniform in [0, 1), or the nets' own start, as published."""
    samples: PositiveInt = 10
    """Residuals drawn at each step, and at test."""
    data_term: Literal["log_mean", "mean_log"] = "log_mean"
    """Log of the mean likelihood over samples, as the reference code has it, or the mean log-likelihood of the ELBO."""
    kl: Literal["mean", "sum"] = "mean"
    """KL divergence averaged over dimensions, as the reference code has it, or summed, as it is defined."""
    kl_weight: NonNegativeFloat = 0.001
    """Factor on the KL divergence."""
    texts_at_once: PositiveInt = 512
    """Texts encoded together; bounds the memory, and changes nothing else."""


@dataclass(frozen=True)
class BayesianPredictor:
    """CLIP with a context (1, M, W) plus residuals; `noise` (S, W) is fixed, so equal questions get equal answers."""

    clip: ClipModel
    context: Tensor
    residual: nn.Module
    noise: Tensor
    texts_at_once: int = 512

    def logits(self, images: ImageSet, classnames: Sequence[str]) -> Tensor:
        """Log-probabilities (N, C): the log of the mean probability over the samples."""
        if isinstance(self.residual, Residual):
            size = max(1, len(images))
        else:
            size = chunk_size(self.texts_at_once, len(classnames) * len(self.noise))
        parts = track(torch.split(images.features, size), "predictions", math.ceil(len(images) / size))
        with torch.no_grad():
            return torch.cat([log_mean(self.log_probabilities(part, classnames, self.noise)) for part in parts])

    def log_probabilities(self, features: Tensor, classnames: Sequence[str], noise: Tensor) -> Tensor:
        """Log-probabilities (S, B, C) of image features (B, D) under residuals made of `noise` (S, W) or (S, B, W)."""
        mean, log_variance = self.residual(features)  # (1 or B, W)
        spread = (0.5 * log_variance).exp()
        residuals = mean + (noise if noise.dim() == 3 else noise[:, None]) * spread  # (S, 1 or B, W)
        contexts = self.context + residuals.flatten(0, 1)[:, None]  # (S x 1 or B, M, W)
        text = self._encode(classnames, contexts)  # (S x 1 or B, C, D)
        if residuals.shape[1] == 1:
            cosine = torch.einsum("bd,scd->sbc", features, text)
        else:
            cosine = torch.einsum("bd,sbcd->sbc", features, text.view(*residuals.shape[:2], *text.shape[1:]))
        return log_softmax(self.clip.logit_scale * cosine, dim=-1)

    def _encode(self, classnames: Sequence[str], contexts: Tensor) -> Tensor:
        def encode(part: Tensor) -> Tensor:
            return encode_context(self.clip, classnames, part[:, None])

        parts = torch.split(contexts, chunk_size(self.texts_at_once, len(classnames)))
        # Activations of several parts are not kept for the backward pass but computed again.
        again = len(parts) > 1 and torch.is_grad_enabled()
        return torch.cat([checkpoint(encode, part, use_reentrant=False) if again else encode(part) for part in parts])


def log_mean(log_probabilities: Tensor) -> Tensor:
    """Log of the mean probability over the samples: (S, ...) to (...)."""
    return log_probabilities.logsumexp(dim=0) - math.log(len(log_probabilities))


def published(dataset: str, _shots: int) -> Mapping[str, Any]:
    """Samples and epochs of the paper for a dataset."""
    samples, epochs = PUBLISHED.get(dataset, (10, 10))
    return {"samples": samples, "epochs": epochs}


def fit(task: FewShotTask, options: BayesianOptions, run: FitRun) -> Fitted:
    """Learn the context and the distribution of the residual on the training shots."""
    clip = task.clip
    context = first_context(clip, options, task.seed)
    with seeded_torch(task.seed, "residual"):
        residual = _residual(clip, options)
    residual.to(clip.device, context.dtype)
    noise = _noise(task, options, seeded_generator(task.seed, "test"))
    model = BayesianPredictor(clip, context, residual, noise, options.texts_at_once)
    parameters = {"context": context, **{f"residual.{name}": value for name, value in residual.named_parameters()}}
    step = _step(task, options, model)
    fit_by_sgd(parameters, step, len(task.train), options, run, task.seed)
    return _fitted(model, parameters)


def _residual(clip: ClipModel, options: BayesianOptions) -> Residual | ConditionalResidual:
    if options.conditional:
        return ConditionalResidual(clip, options.log_variance, options.hidden)
    return Residual(clip, options.log_variance)


def _step(task: FewShotTask, options: BayesianOptions, model: BayesianPredictor) -> Step:
    training = TrainingFeatures.of(task, options.augment, options.crops)
    texts_each = len(task.classnames) * options.samples
    size = chunk_size(options.texts_at_once, texts_each) if options.conditional else options.batch

    def step(indices: Tensor, generator: torch.Generator) -> StepResult:
        """Gradient of one batch, chunk by chunk."""
        noise = _noise(task, options, generator, len(indices) if options.conditional else None)
        features, labels = (torch.split(part, size) for part in training.batch(indices, generator))
        noises = torch.split(noise, size, dim=1) if options.conditional else (noise,) * len(labels)
        total, hits = 0.0, 0
        for own_features, own_labels, own_noise in zip(features, labels, noises, strict=True):
            scores = model.log_probabilities(own_features, task.classnames, own_noise)
            loss = data_term(scores, own_labels, options)
            loss = loss + options.kl_weight * _kl(model.residual(own_features), options)
            share = len(own_labels) / len(indices)
            torch.autograd.backward(loss * share)
            total += loss.item() * share
            hits += count_right(log_mean(scores), own_labels)
        return StepResult(total, hits)

    return step


def data_term(scores: Tensor, labels: Tensor, options: BayesianOptions) -> Tensor:
    """The data term of log-probabilities (S, B, C), as a mean over images."""
    own = scores.gather(2, labels.expand(len(scores), -1)[:, :, None]).squeeze(2)  # (S, B)
    return -(log_mean(own) if options.data_term == "log_mean" else own.mean(dim=0)).mean()


def _kl(distribution: tuple[Tensor, Tensor], options: BayesianOptions) -> Tensor:
    each = kl_to_standard_normal(*distribution)  # (1 or B, W)
    return (each.mean(dim=-1) if options.kl == "mean" else each.sum(dim=-1)).mean()


def _noise(
    task: FewShotTask, options: BayesianOptions, generator: torch.Generator, images: int | None = None
) -> Tensor:
    shape = (options.samples, task.clip.width) if images is None else (options.samples, images, task.clip.width)
    return torch.randn(shape, generator=generator).to(task.clip.device, task.train.features.dtype)


def _fitted(model: BayesianPredictor, parameters: Mapping[str, Tensor]) -> Fitted:
    model.residual.requires_grad_(False)
    learned = {name: value.detach() for name, value in parameters.items()}
    figures: dict[str, Any] = {"reading": read_context(model.clip, learned["context"][0])}
    if isinstance(model.residual, Residual):
        spread = (0.5 * learned["residual.log_variance"]).exp()
        norm = float(learned["residual.mean"].norm())
        figures["residual"] = {"mean_norm": norm, "deviation_mean": float(spread.mean())}
    predictor = BayesianPredictor(model.clip, learned["context"], model.residual, model.noise, model.texts_at_once)
    return Fitted({"bayesian": predictor}, {**learned, "noise": model.noise}, figures)


def restore(
    clip: ClipModel, _classnames: tuple[str, ...], options: BayesianOptions, learned: Mapping[str, Tensor]
) -> Mapping[str, Predictor]:
    """The predictor of a fit by what it learned. Raises `RunError` where an earlier version kept no noise."""
    if "noise" not in learned:
        raise RunError("an earlier version of ipo kept no noise of this fit", remedy="Make the run anew")
    placed = {name: tensor.to(clip.device) for name, tensor in learned.items()}
    residual = _residual(clip, options)
    residual.load_state_dict({name: placed[f"residual.{name}"] for name in residual.state_dict()})
    residual.to(clip.device, placed["context"].dtype).requires_grad_(False)
    context, noise = placed["context"], placed["noise"]
    return {"bayesian": BayesianPredictor(clip, context, residual, noise, options.texts_at_once)}


METHOD = Method(
    name="bayesian",
    summary="a learned distribution over contexts, for all images or for each",
    options=BayesianOptions,
    fit=fit,
    paper="Bayesian Prompt Learning for Image-Language Model Generalization, arXiv 2210.02390",
    published=published,
    check=require_context_fits,
    restore=restore,
    uses=lambda *_: {"labels"},
)
