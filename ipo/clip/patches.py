"""Features of the patches of images, for methods that compare texts with parts of an image; kept like global ones.

They take much room, 200 kB an image for ViT-B/16: so they are in half precision, stay on the disk, and are read a few
images at a time. How much room they will take is said, and looked for, before any is computed.
Shape legend: B images asked for, D feature width, N images, P patches of an image.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ipo.clip.base import ClipModel
from ipo.clip.features import Extraction, FeatureKind
from ipo.config import ClipSettings
from ipo.data.types import Item
from ipo.errors import ModelError, RunError
from ipo.screen import counted
from ipo.store.cache import cache_folder, unwritable

PATCH_DTYPE = torch.float16
SHARD_IMAGES = 128
"""Images whose patches are written together: 26 MB for ViT-B/16."""


class PatchFeatures:
    """Raw features (N, 1 + P, D) of whole images and of their patches, read from where they lie."""

    def __init__(self, rows: Sequence[Tensor], device: torch.device) -> None:
        self.rows, self._device = rows, device

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, indices: Sequence[int]) -> Tensor:
        """Features (B, 1 + P, D) of the images at `indices` on the model's device, float32, each image's own first."""
        rows = torch.stack([self.rows[index] for index in indices]).to(self._device)
        return rows.to(torch.promote_types(rows.dtype, torch.float32))


class PatchStore(Extraction):
    """Patch features of image files, in half precision, in a folder of the model beside that of global ones."""

    def __init__(
        self, clip: ClipModel, folder: Path, *, workers: int = 2, batch_size: int = 64, skip_unreadable: bool = False
    ) -> None:
        shape = (1 + clip.patch_count, clip.dim)
        kind = FeatureKind("patch features", shape, clip.encode_patches, PATCH_DTYPE, SHARD_IMAGES)
        options = {"workers": workers, "batch_size": batch_size}
        own = folder / f"{clip.fingerprint.key}-patches"
        super().__init__(clip, own, kind, **options, skip_unreadable=skip_unreadable)

    def load(self, items: Sequence[Item]) -> PatchFeatures:
        """The patch features of `items`, in their order, without those of images that cannot be read.

        Raises `DataError` for such, unless they may be left out.
        """
        _, digests = self.ensure(items)
        return PatchFeatures([self.shards[digest] for digest in digests], self._clip.device)

    def announce(self, items: Sequence[Item]) -> str | None:
        """What the features of those `items` that have none yet will take; None where all are there.

        Raises `RunError` where the disk has no room for them.
        """
        count = self.missing(items)
        if not count:
            return None
        size = count * math.prod(self.shards.shape) * PATCH_DTYPE.itemsize
        place = cache_folder() if unwritable() is None else None
        words = f"patch features of {counted(count, 'image')} take {describe_bytes(size)}"
        if place is not None and (free := shutil.disk_usage(place).free) < size:
            what = f"{words}, and {describe_bytes(free)} are free"
            remedy = "Free some space, or set IPO_CACHE to a folder on another disk"
            raise RunError(what, where=str(place), remedy=remedy)
        return f"{words} {'in memory' if place is None else f'in {place}'}"


def describe_bytes(size: int) -> str:
    """A number of bytes in MB, or in GB from 10,000 MB on."""
    return f"{max(1, round(size / 1e6)):,} MB" if size < 1e10 else f"{size / 1e9:.0f} GB"


def require_patches(clip: ClipModel) -> None:
    """Raise `ModelError` for a model whose image tower has no patch features in the space of texts."""
    if not clip.patch_count:
        what = f"{clip.fingerprint.name} has no patch features: its image tower is no plain vision transformer"
        raise ModelError(what, remedy="Take a ViT of open_clip, such as ViT-B-16-quickgelu/openai, or mini offline")


def patch_store(settings: ClipSettings, clip: ClipModel, *, skip_unreadable: bool) -> PatchStore:
    """The store of patch features that the settings describe, in the cache folder. `ModelError` as above."""
    require_patches(clip)
    options = {"workers": settings.workers, "batch_size": settings.image_batch}
    return PatchStore(clip, cache_folder() / "features", **options, skip_unreadable=skip_unreadable)
