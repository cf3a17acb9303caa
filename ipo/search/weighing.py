"""Prompts weighed by images without labels: CARPRT for each class, ZPE for all classes alike.

CARPRT: Class-Aware Zero-shot Prompt Reweighting (ICLR 2026). ZPE: A Simple Zero-shot Prompt Weighting Technique to
Improve Prompt Ensembling in Text-Image Models (arXiv 2302.06235).
Shape legend: P prompts, C classes, D feature width, N test images, U images without labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ipo.clip.base import ClipModel
from ipo.clip.features import feature_store
from ipo.config import ClipSettings, LabelFreeRule
from ipo.data.folders import images_below
from ipo.data.types import UnlabelledItem
from ipo.metrics import centred_top_logit, top_logit_of_classes
from ipo.prompt import Prompt
from ipo.scoring import ImageSet, text_features

CONFIDENCES: Mapping[LabelFreeRule, Callable[[Tensor], Tensor]] = {
    "carprt": top_logit_of_classes,
    "zpe": centred_top_logit,
}
"""From the logits (U, C) of a prompt to how much it is to count: for each class (C,), or for all of them (1,)."""


def prompt_weights(rule: LabelFreeRule, text: Tensor, images: Tensor, logit_scale: float, temperature: float) -> Tensor:
    """Weights (P, C) or (P, 1) of prompts with text features (P, C, D), by the features (U, D) of images."""
    confidences = [CONFIDENCES[rule](logit_scale * images @ one.T) for one in text]
    return (torch.stack(confidences) / temperature).softmax(dim=0).to(text.dtype)


@dataclass(frozen=True)
class WeighedPredictor:
    """CLIP with the weighted mean of the scores of several prompts, by features (U, D) of images without labels."""

    clip: ClipModel
    prompts: tuple[Prompt, ...]
    rule: LabelFreeRule
    images: Tensor
    temperature: float = 1.0

    def logits(self, images: ImageSet, classnames: Sequence[str]) -> Tensor:
        """Logits (N, C) = logit_scale x cosine, a weighted mean over the prompts."""
        text = text_features(self.clip, self.prompts, classnames)
        classifier = (self._weights(text)[:, :, None] * text).sum(dim=0)  # not made unit length again
        return self.clip.logit_scale * images.features @ classifier.T

    def weights(self, classnames: Sequence[str]) -> Tensor:
        """Weights (P, C) or (P, 1) of the prompts for some classes."""
        return self._weights(text_features(self.clip, self.prompts, classnames))

    def _weights(self, text: Tensor) -> Tensor:
        return prompt_weights(self.rule, text, self.images, self.clip.logit_scale, self.temperature)


def read_unlabelled(clip: ClipModel, folder: Path) -> ImageSet:
    """All images below a folder. Raises `DataError` where there is none, or one that cannot be read."""
    items = [UnlabelledItem(path) for path in images_below(folder)]
    kept, features = feature_store(ClipSettings(), clip, skip_unreadable=False).load(items)
    return ImageSet(kept, features)
