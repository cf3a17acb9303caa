"""What keeps a tuned image tower near the zero-shot model: one function for each method.

Each takes the task, the classifier before tuning, and a weight, and gives a `Regulariser`.
Shape legend: B images, C classes, D feature width, K prompts, M random texts.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, normalize

from ipo.clip.base import ClipModel
from ipo.scoring import text_features
from ipo.task import FewShotTask

from .towers import TunedClassifier
from .tuning import Penalty, Regulariser, TuningBatch
from .zero_shot import EIGHTY, usable

MakeRegulariser = Callable[[FewShotTask, TunedClassifier, float], Regulariser]


def at_every_step(penalty: Penalty) -> Regulariser:
    """The same penalty at every step."""
    return lambda _generator: penalty


def no_penalty(_task: FewShotTask, _model: TunedClassifier, _weight: float) -> Regulariser:
    """Plain fine-tuning."""
    return at_every_step(lambda batch: batch.logits.new_zeros(()))


def weight_distance(_task: FewShotTask, model: TunedClassifier, weight: float) -> Regulariser:
    """L2-SP (arXiv 1802.01483): weight/2 times the squared distance of all weights from where they started."""
    start = [parameter.detach().clone() for parameter in model.parameters()]

    def penalty(_: TuningBatch) -> Tensor:
        pairs = zip(model.parameters(), start, strict=True)
        return weight / 2 * torch.stack([(now - first).pow(2).sum() for now, first in pairs]).sum()

    return at_every_step(penalty)


def distillation(_task: FewShotTask, model: TunedClassifier, weight: float) -> Regulariser:
    """KD (arXiv 1503.02531): weight times KL(zero-shot class distribution || tuned one)."""
    head, scale = model.head.detach().clone(), model.logit_scale

    def penalty(batch: TuningBatch) -> Tensor:
        return weight * divergence(scale * batch.frozen @ head.T, batch.logits)

    return at_every_step(penalty)


def context_distillation(task: FewShotTask, model: TunedClassifier, weight: float) -> Regulariser:
    """CAR-FT (arXiv 2211.16175): weight times KL(zero-shot distribution over the 80 prompts || tuned one).

    A prompt's feature (K, D) is the renormalised mean of its class features.
    """
    contexts = normalize(text_features(task.clip, usable(task.room, EIGHTY), task.classnames).mean(dim=1), dim=-1)
    scale = model.logit_scale

    def penalty(batch: TuningBatch) -> Tensor:
        return weight * divergence(scale * batch.frozen @ contexts.T, scale * batch.features @ contexts.T)

    return at_every_step(penalty)


def random_texts(clip: ClipModel, generator: torch.Generator, count: int = 80, length: int = 8) -> Tensor:
    """Features (M, D) of texts of tokens drawn uniformly; CLIP's start and end tokens, the last two, are left out."""
    ids = torch.randint(len(clip.vocabulary()[0]) - 2, (count, length), generator=generator)
    return clip.encode_tokens(ids.tolist())


def energy_gap(clip: ClipModel, features: Tensor, frozen: Tensor, texts: Tensor) -> Tensor:
    """Half the mean squared change of the scaled inner products with texts (M, D), over texts and images (B, D)."""
    return 0.5 * (clip.logit_scale * (features - frozen) @ texts.T).pow(2).mean()


def text_guidance(
    task: FewShotTask, _model: TunedClassifier, weight: float, texts: int = 80, length: int = 8
) -> Regulariser:
    """Lipsum-FT (arXiv 2404.00860): weight times the energy gap under random texts, drawn anew every step.

    As published, inner products are scaled by exp(logit_scale), and all processes draw the same texts.
    """

    def with_new_texts(generator: torch.Generator) -> Penalty:
        drawn = random_texts(task.clip, generator, texts, length)
        return lambda batch: weight * energy_gap(task.clip, batch.features, batch.frozen, drawn)

    return with_new_texts


def divergence(target: Tensor, logits: Tensor) -> Tensor:
    """Mean over images of KL(softmax(target) || softmax(logits)) of logits (B, C)."""
    return kl_div(log_softmax(logits, dim=-1), log_softmax(target, dim=-1), reduction="batchmean", log_target=True)
