"""Features of the training images under a frozen image tower: of the test transform, or of random crops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ipo.clip.base import ClipModel
from ipo.progress import track
from ipo.task import FewShotTask

from .views import Views, encode_views

Augment = Literal["none", "cached", "fly"]


@dataclass(frozen=True)
class TrainingFeatures:
    """Features of the training images by batches.

    `cached` (K, N, D) holds the features of K views of each image to draw from; without it, crops are encoded anew.
    """

    clip: ClipModel
    views: Views
    labels: Tensor
    cached: Tensor | None

    @classmethod
    def of(cls, task: FewShotTask, augment: Augment, count: int) -> TrainingFeatures:
        """Features of the training shots: the test transform's, those of `count` crops, or encoded on the fly."""
        clip, labels = task.clip, task.train.labels
        views = Views.of(clip, task.train.items, crops=augment != "none", seed=task.seed)
        if augment == "none":
            return cls(clip, views, labels, task.train.features[None])
        if augment == "fly":
            return cls(clip, views, labels, None)
        draws = track(range(count), "crops", total=count)
        return cls(clip, views, labels, torch.stack([encode_views(views, _encoder(clip), draw) for draw in draws]))

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Features (B, D) and labels (B,) of the images at `indices`, each in a view drawn from `generator`."""
        indices = indices.to(self.labels.device)
        if self.cached is None:
            draw = int(torch.randint(2**31, (), generator=generator))
            chosen = replace(self.views, items=tuple(self.views.items[index] for index in indices.tolist()))
            return encode_views(chosen, _encoder(self.clip), draw), self.labels[indices]
        drawn = torch.randint(len(self.cached), (len(indices),), generator=generator).to(indices.device)
        return self.cached[drawn, indices], self.labels[indices]


def _encoder(clip: ClipModel) -> Callable[[Tensor], Tensor]:
    return lambda pixels: clip.encode_images(pixels.to(clip.device))
