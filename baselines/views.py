"""Pixels of image files: as the test transform shows them, or in the random crops of CoOp's and Lipsum-FT's code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import Compose, InterpolationMode, RandomHorizontalFlip, RandomResizedCrop

from ipo.clip.base import ClipModel
from ipo.data.images import load_image
from ipo.data.types import Item

from .training import seeded_torch

ViewKey = tuple[int, int]
"""A draw and the index of an image: the same key is always the same crop."""


@dataclass(frozen=True)
class Views(Dataset[tuple[Tensor, int]]):
    """Pixels (3, H, W) and place of each image; in a crop of its own for each draw where `crop` is the side of one."""

    items: tuple[Item, ...]
    preprocess: Callable[[Image.Image], Tensor]
    crop: int | None
    seed: int

    def __getitem__(self, key: ViewKey) -> tuple[Tensor, int]:
        """Pixels and place of one view."""
        draw, index = key
        image = load_image(self.items[index].path)
        if self.crop is not None:
            image = random_crop(image, self.crop, self.seed, draw, index)
        return self.preprocess(image), index

    @classmethod
    def of(cls, clip: ClipModel, items: Sequence[Item], crops: bool, seed: int = 0) -> Views:
        """Views of some images for a model."""
        return cls(tuple(items), clip.preprocess, input_size(clip) if crops else None, seed)


class _Chunks(Sampler[list[ViewKey]]):
    """A batch sampler for `DataLoader` that takes its batches from an iterable."""

    def __init__(self, chunks: Iterable[list[ViewKey]]) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[list[ViewKey]]:
        return iter(self.chunks)


def load_views(views: Views, chunks: Iterable[list[ViewKey]], workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pixels (B, 3, H, W) and places (B,) of each chunk in turn, read by `workers` processes."""
    return iter(DataLoader(views, batch_sampler=_Chunks(chunks), num_workers=workers))


def encode_views(
    views: Views, encode: Callable[[Tensor], Tensor], draw: int = 0, batch: int = 64, workers: int = 0
) -> Tensor:
    """What `encode` makes (N, D) of one view of every image."""
    keys = [(draw, index) for index in range(len(views.items))]
    starts = range(0, len(keys), batch)
    loader = load_views(views, [keys[start : start + batch] for start in starts], workers)
    return torch.cat([encode(pixels) for pixels, _ in loader])


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
