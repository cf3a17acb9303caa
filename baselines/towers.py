"""Image towers with a classification head, to be tuned, and the predictor that they become.

Shape legend: B images, C classes, D feature width, N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ipo.clip.base import ClipModel
from ipo.errors import ConfigError
from ipo.prompt import Prompt
from ipo.scoring import ImageSet, ensemble_classifier, text_features
from ipo.task import FewShotTask

from .views import Views, encode_views
from .zero_shot import EIGHTY, usable


class TunedClassifier(nn.Module):
    """An image tower and a head (C, D), both trained, in eval mode: batch norm and dropout stay as they are."""

    def __init__(self, tower: nn.Module, head: Tensor, logit_scale: float) -> None:
        super().__init__()
        self.tower, self.head, self.logit_scale = tower, nn.Parameter(head.clone()), logit_scale
        self.eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D) and logits (B, C) of pixels (B, 3, H, W); the product with the head in its own precision."""
        features = self.tower(pixels).to(self.head.dtype)
        with torch.autocast(pixels.device.type, enabled=False):
            return features, self.logit_scale * features @ self.head.T

    def recompute_activations(self) -> None:
        """Switch gradient checkpointing on. Raises `ConfigError` for a tower that has no such switch."""
        for layer in self.tower.modules():
            switch = getattr(layer, "set_grad_checkpointing", None)
            if callable(switch):
                switch(True)
                return
        raise ConfigError("this image tower cannot recompute activations", remedy="Leave checkpointing off")


@dataclass(frozen=True)
class TunedPredictor:
    """A tuned image tower. The classes of the fit are judged by the tuned head, others by their prompt ensemble."""

    clip: ClipModel
    model: TunedClassifier
    classnames: tuple[str, ...]
    batch: int = 64
    workers: int = 0
    prompts: tuple[Prompt, ...] = EIGHTY
    """The ensemble for other classes."""

    def logits(self, images: ImageSet, classnames: Sequence[str]) -> Tensor:
        """Logits (N, C). Where the head lacks a name, all names are judged by the prompt ensemble."""
        if tuple(classnames) == self.classnames:  # by place: two classes may share a name, as in ImageNet
            head: Tensor = self.model.head
        elif set(classnames) <= set(self.classnames):
            head = self.model.head[[self.classnames.index(name) for name in classnames]]
        else:
            head = zero_shot_head(self.clip, classnames, self.prompts)
        return self.clip.logit_scale * self.features(images) @ head.T

    def features(self, images: ImageSet) -> Tensor:
        """Features (N, D) of the image files under the tuned tower and the test transform."""
        views = Views.of(self.clip, images.items, crops=False)
        return encode_views(views, self._encode, batch=self.batch, workers=self.workers)

    @torch.no_grad()
    def _encode(self, pixels: Tensor) -> Tensor:
        features, _ = self.model.forward(pixels.to(self.clip.device))
        return features


def zero_shot_head(clip: ClipModel, classnames: Sequence[str], prompts: Sequence[Prompt] = EIGHTY) -> Tensor:
    """Class features (C, D): the renormalised mean of the 80 prompts."""
    return ensemble_classifier(text_features(clip, prompts, classnames))


def first_classifier(task: FewShotTask) -> TunedClassifier:
    """The zero-shot model as a classifier to be trained."""
    head = zero_shot_head(task.clip, task.classnames, usable(task.room, EIGHTY))
    return TunedClassifier(task.clip.image_tower(), head, task.clip.logit_scale)


def interpolate(start: nn.Module, end: nn.Module, alpha: float) -> None:
    """Set the weights of `end` to (1 - alpha) x those of `start` + alpha x its own."""
    with torch.no_grad():
        for first, last in zip(start.parameters(), end.parameters(), strict=True):
            last.lerp_(first, 1 - alpha)
