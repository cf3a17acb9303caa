"""A CLIP whose image side is a fixed projection of 8 x 8 thumbnails, and pictures to go with it."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ipo.clip.base import Fingerprint
from ipo.data.types import Item
from tests.fakes import FakeClip, ThumbnailTower, thumbnail

__all__ = ["PictureClip", "draw_pictures", "thumbnail"]


class PictureClip(FakeClip):
    """Keeps the shape of every batch of images, and breaks off after `batches` of them."""

    def __init__(self, weights: str = "0", batches: int = 10**6) -> None:
        super().__init__()
        self.fingerprint = Fingerprint("pictures", weights, "thumbnail")
        self.batches = batches
        self.shapes: list[tuple[int, ...]] = []
        self.tower = ThumbnailTower(self.dim, seed=len(weights))

    def encode_images(self, pixels: Tensor) -> Tensor:
        if len(self.shapes) == self.batches:
            raise KeyboardInterrupt
        self.shapes.append(tuple(pixels.shape))
        return super().encode_images(pixels)


def draw_pictures(folder: Path, count: int, seed: int = 0) -> list[Item]:
    """`count` noisy pictures as items, labelled by their number."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    items = []
    for number in range(count):
        noise = torch.randint(0, 256, (20, 24, 3), generator=generator, dtype=torch.uint8)
        path = folder / f"{number:03}.png"
        Image.frombytes("RGB", (24, 20), bytes(noise.flatten().tolist())).save(path)
        items.append(Item(path, number))
    return items
