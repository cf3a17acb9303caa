"""Training images: as the test transform shows them, or in the random crops of CoOp's and Lipsum-FT's code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose, InterpolationMode, RandomHorizontalFlip, RandomResizedCrop

from baselines.training import seeded_torch
from ipo.clip.base import ClipModel
from ipo.data.images import load_image
from ipo.data.types import Item
from ipo.evaluate import ImageSet
from ipo.progress import track
from ipo.protocols import FewShotTask

Augment = Literal["none", "cached", "fly"]


@dataclass(frozen=True)
class TrainingFeatures:
    """Features of the training images under a frozen image tower, by batches.

    `crops` (K, N, D) holds the features of K views of each image to draw from; without it, images are encoded anew.
    """

    clip: ClipModel
    images: ImageSet
    crops: Tensor | None
    seed: int

    @classmethod
    def of(cls, task: FewShotTask, augment: Augment, views: int) -> TrainingFeatures:
        """Features of the training shots: the test transform's, those of `views` crops, or encoded on the fly."""
        if augment == "none":
            return cls(task.clip, task.train, task.train.features[None], task.seed)
        if augment == "fly":
            return cls(task.clip, task.train, None, task.seed)
        rows = [
            encode_crops(task.clip, task.train.items, task.seed, view)
            for view in track(range(views), "crops", total=views)
        ]
        return cls(task.clip, task.train, torch.stack(rows), task.seed)

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Features (B, D) and labels (B,) of the images at `indices`, each in a view drawn from `generator`."""
        indices = indices.to(self.images.features.device)
        labels = self.images.labels[indices]
        if self.crops is None:
            draw = int(torch.randint(2**31, (), generator=generator))
            return encode_crops(self.clip, [self.images.items[i] for i in indices.tolist()], self.seed, draw), labels
        if len(self.crops) == 1:
            return self.crops[0, indices], labels
        views = torch.randint(len(self.crops), (len(indices),), generator=generator).to(indices.device)
        return self.crops[views, indices], labels


def encode_crops(clip: ClipModel, items: Sequence[Item], seed: int, draw: int, batch: int = 64) -> Tensor:
    """Features (N, D) of one random crop of each image, the same for the same seed and draw."""
    size = input_size(clip)
    parts = []
    for start in range(0, len(items), batch):
        pixels = [
            clip.preprocess(random_crop(load_image(item.path), size, seed, draw, start + offset))
            for offset, item in enumerate(items[start : start + batch])
        ]
        parts.append(clip.encode_images(torch.stack(pixels).to(clip.device)))
    return torch.cat(parts)


def random_crop(image: Image.Image, size: int, seed: int, *words: object) -> Image.Image:
    """A crop of 8 to 100% of the area, resized to a square of `size` (bicubic) and flipped half of the time."""
    transform = Compose(
        [
            RandomResizedCrop(size, scale=(0.08, 1.0), interpolation=InterpolationMode.BICUBIC),
            RandomHorizontalFlip(),
        ]
    )
    with seeded_torch(seed, "crop", *words):
        cropped: Image.Image = transform(image)
        return cropped


def input_size(clip: ClipModel) -> int:
    """Height and width of the pixels that the model takes."""
    return int(clip.preprocess(Image.new("RGB", (32, 32))).shape[-1])
