"""A CLIP whose image side is a fixed projection of 8 x 8 thumbnails, and pictures to go with it."""

import torch
from PIL import Image
from torch.nn.functional import normalize

from ipo.clip.base import Fingerprint
from ipo.data.types import Item


def thumbnail(image):
    """Pixels (3, 8, 8); a function of the module, so that worker processes can find it."""
    return torch.tensor(list(image.resize((8, 8)).tobytes()), dtype=torch.float32).view(8, 8, 3).permute(2, 0, 1) / 255


class PictureClip:
    """Encodes images only; keeps the shape of every batch, and breaks off after `batches` of them."""

    dim = 16
    device = torch.device("cpu")

    def __init__(self, weights="0", batches=10**6):
        self.fingerprint = Fingerprint("pictures", weights, "thumbnail")
        self.preprocess = thumbnail
        self.batches, self.shapes = batches, []
        self.projection = torch.randn(3 * 8 * 8, self.dim, generator=torch.Generator().manual_seed(len(weights)))

    def encode_images(self, pixels):
        if len(self.shapes) == self.batches:
            raise KeyboardInterrupt
        self.shapes.append(tuple(pixels.shape))
        return normalize(pixels.flatten(1) @ self.projection, dim=-1)


def draw_pictures(folder, count, seed=0):
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
