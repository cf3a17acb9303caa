"""Tip-Adapter: a key-value cache of the training shots beside the zero-shot classifier (arXiv 2207.09519).

logits = logit_scale x image . text + alpha x exp(-beta (1 - image . key)) x labels of the keys. Nothing is trained,
unless `fine_tune` is set, which trains the keys (Tip-Adapter-F). It knows the classes of the fit alone.
Shape legend: B batch, C classes, D feature width, K keys (one a training image), N images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot

from ipo.data.uses import Use
from ipo.errors import DataError
from ipo.methods import FitRun, Fitted, Means, Method
from ipo.metrics import accuracy, count_right
from ipo.scoring import ImageSet, ensemble_classifier, text_features
from ipo.task import FewShotTask

from . import linear_probe
from .augment import Augment, TrainingFeatures
from .training import Descent, EpochOptions, StepResult, fit_by_epochs
from .zero_shot import ZeroShotOptions, own_prompts

SCALE, STEPS = (7.0, 3.0), (200, 20)
"""The reference code's grid for ImageNet: upper ends of beta and alpha, and how many of each."""


class TipAdapterOptions(ZeroShotOptions, EpochOptions):
    """Hyper-parameters of Tip-Adapter: the reference code's for ImageNet, on every dataset."""

    only_with: ClassVar[Mapping[str, tuple[str, Any]]] = {
        "crops": ("augment", "cached"),
        "epochs": ("fine_tune", True),
        "batch": ("fine_tune", True),
        "learning_rate": ("fine_tune", True),
    }

    alpha: NonNegativeFloat = 1.17
    """Weight of the cache; 0 is zero-shot."""
    beta: PositiveFloat = 1.0
    """How much nearer keys count more than farther ones."""
    tune: bool = False
    """Choose alpha and beta by accuracy on the validation images, from the reference code's grid for ImageNet."""
    fine_tune: bool = False
    """Train the keys (Tip-Adapter-F); the last epoch's are kept."""
    epochs: NonNegativeInt = 20
    """Passes over the training shots."""
    batch: PositiveInt = 256
    """Images a step; an incomplete last batch of an epoch is dropped."""
    learning_rate: PositiveFloat = 0.001
    """First rate of AdamW; a cosine to 0 follows."""
    augment: Augment = "none"
    """`cached`, as published, makes a key the mean of a few crops, and trains on them; `none` has the test transform's
    features; `fly` trains on crops that are encoded anew, and has keys of the test transform."""
    crops: PositiveInt = 10
    """Crops of each image when they are cached."""


@dataclass(frozen=True)
class Cache:
    """Zero-shot class features (C, D), keys (K, D) and the labels (K, C) of the keys, which count as alpha says."""

    text: Tensor
    keys: Tensor
    values: Tensor
    scale: float
    alpha: float
    beta: float

    def logits(self, features: Tensor) -> Tensor:
        """Logits (B, C) of image features (B, D), with gradient to the keys."""
        affinity = features @ self.keys.T  # (B, K)
        return self.scale * features @ self.text.T + self.alpha * (self.beta * (affinity - 1)).exp() @ self.values


@dataclass(frozen=True)
class CachePredictor:
    """A cache with the names of its classes."""

    cache: Cache
    classnames: tuple[str, ...]

    def logits(self, images: ImageSet, classnames: Sequence[str]) -> Tensor:
        """Logits (N, C). Raises `ConfigError` for other classes than those of the fit."""
        linear_probe.require_own_classes(classnames, self.classnames)
        return self.cache.logits(images.features)


def first_cache(task: FewShotTask, options: TipAdapterOptions, training: TrainingFeatures) -> Cache:
    """The cache before anything is trained or chosen."""
    text = ensemble_classifier(text_features(task.clip, own_prompts(task, options), task.classnames))
    views = task.train.features[None] if training.cached is None else training.cached  # (views, K, D)
    keys = normalize(views.mean(dim=0), dim=-1)
    values = one_hot(task.train.labels, len(task.classnames)).to(keys.dtype)
    return Cache(text, keys, values, task.clip.logit_scale, options.alpha, options.beta)


def fine_tuned(
    task: FewShotTask, options: TipAdapterOptions, cache: Cache, training: TrainingFeatures, run: FitRun
) -> Cache:
    """The cache with keys that were trained by cross-entropy."""
    keys = cache.keys.clone().requires_grad_()
    learning = replace(cache, keys=keys)

    def step(indices: Tensor, generator: torch.Generator) -> StepResult:
        """Gradient of one batch."""
        features, labels = training.batch(indices, generator)
        logits = learning.logits(features)
        loss = cross_entropy(logits, labels)
        torch.autograd.backward(loss)
        return StepResult(loss.item(), count_right(logits, labels))

    optimizer = torch.optim.AdamW([keys], lr=options.learning_rate, eps=1e-4)
    descent = Descent(options, optimizer, partial(cosine_rate, options))
    fit_by_epochs({"keys": keys}, step, len(task.train), descent, run, task.seed)
    return replace(cache, keys=keys.detach())


def cosine_rate(options: TipAdapterOptions, passed: float) -> float:
    """The learning rate after a number of epochs, whole or not."""
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * passed / options.epochs))


def tuned(cache: Cache, images: ImageSet) -> Cache:
    """The cache with the alpha and beta that do best on some images, of equals the smaller beta, then alpha."""
    betas, alphas = (
        [0.1 + place * (end - 0.1) / count for place in range(count)] for end, count in zip(SCALE, STEPS, strict=True)
    )
    labels, plain = images.labels, replace(cache, alpha=0.0).logits(images.features)
    best, chosen = -1.0, cache
    for beta in betas:
        cached = replace(cache, scale=0.0, alpha=1.0, beta=beta).logits(images.features)
        for alpha in alphas:
            if (found := accuracy(plain + alpha * cached, labels)) > best:
                best, chosen = found, replace(cache, alpha=alpha, beta=beta)
    return chosen


def uses(options: TipAdapterOptions, means: Means) -> set[Use]:
    """As a linear probe; and labels of validation images where alpha and beta are chosen by them."""
    return linear_probe.uses(options, means) | ({"val_labels"} if options.tune else set())


def fit(task: FewShotTask, options: TipAdapterOptions, run: FitRun) -> Fitted:
    """Make the cache, train its keys where asked, and choose alpha and beta where asked."""
    if options.tune and not len(task.val):
        raise DataError("there are no validation images to choose by", remedy="Leave tune out")
    training = TrainingFeatures.of(task, options.augment, options.crops)
    cache = first_cache(task, options, training)
    if options.fine_tune:
        cache = fine_tuned(task, options, cache, training, run)
    if options.tune:
        cache = tuned(cache, task.val)
    return Fitted(
        {"tip-adapter": CachePredictor(cache, task.classnames)},
        {"keys": cache.keys} if options.fine_tune else {},
        {"alpha": cache.alpha, "beta": cache.beta},
        own_classes_only=True,
    )


METHOD = Method(
    name="tip-adapter",
    summary="a cache of the training shots' features beside the zero-shot classifier",
    options=TipAdapterOptions,
    fit=fit,
    paper="Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification, arXiv 2207.09519",
    check=linear_probe.check,
    uses=uses,
)
