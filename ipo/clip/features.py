"""Image features, computed once per model and image content, divided among processes, memory-mapped afterwards.

Under `torchrun` or `accelerate launch` each process encodes its share; the cache folder must be one that all see.
All batches have the same shape, so a feature does not depend on the images that happened to be encoded beside it.
Shape legend: N images, D feature width.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor

from ipo.clip.base import ClipModel
from ipo.clip.hashes import MEMORY_FILE, ContentHashes
from ipo.clip.pictures import decode
from ipo.clip.shards import Shards
from ipo.config import ClipSettings
from ipo.data.types import Item
from ipo.errors import DataError, ModelError
from ipo.progress import track
from ipo.screen import counted
from ipo.store.cache import cache_folder

SHARD_IMAGES = 512
"""Features written together: what is lost at most when the process is killed."""

_CPU_BATCH = 8
"""Images encoded at once on a CPU, where more of them gain nothing and a short batch would be padded to its size."""

_NAMED = 5
"""Unreadable images that a message names."""

_PRECISION = "try --set clip.precision=float32"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureKind:
    """What is computed of an image: what it is called, its shape and type, and by what."""

    name: str
    shape: tuple[int, ...]
    encode: Callable[[Tensor], Tensor]
    """Pixels (B, 3, H, W) to features (B, ...)."""
    dtype: torch.dtype = torch.float32
    shard_images: int | None = None
    """Images written together, where they are fewer than SHARD_IMAGES."""


class Extraction:
    """Features of one kind of image files under `clip`, kept in `folder`; what is not there is computed.

    `workers` processes decode, `batch_size` images are encoded at once. Unreadable images are an error, unless
    `skip_unreadable`: then they are left out and named in a warning.
    """

    def __init__(
        self,
        clip: ClipModel,
        folder: Path,
        kind: FeatureKind,
        *,
        workers: int = 2,
        batch_size: int = 64,
        skip_unreadable: bool = False,
    ) -> None:
        self._clip, self._kind, self._workers, self._skip_unreadable = clip, kind, workers, skip_unreadable
        self._batch = images_at_once(clip, batch_size)
        self._hashes = ContentHashes(folder.parent / MEMORY_FILE)
        self.shards = Shards(folder, kind.shape, kind.dtype, json.dumps(asdict(clip.fingerprint), indent=2))

    def missing(self, items: Sequence[Item]) -> int:
        """How many different images have no features yet."""
        hashes, _ = self._hashes.of([item.path for item in items])
        self.shards.open()
        return len({digest for digest in hashes.values() if digest not in self.shards})

    def ensure(self, items: Sequence[Item]) -> tuple[tuple[Item, ...], list[bytes]]:
        """The readable ones of `items`, in order, and the digests by which `shards` has their features.

        Raises `DataError` that counts and names unreadable images, after the features of the others were stored.
        """
        hashes, problems = self._hashes.of([item.path for item in items])
        self.shards.open()
        unreadable = self._extract({digest: path for path, digest in hashes.items()})
        problems |= {path: unreadable[digest] for path, digest in hashes.items() if digest in unreadable}
        if problems:
            self._report(problems, len(items))
        kept = tuple(item for item in items if item.path not in problems)
        return kept, [hashes[item.path] for item in kept]

    def require_numbers(self, features: Tensor, paths: Sequence[Path], remedy: str = "") -> None:
        """Raise `ModelError` for features (N, ...) with a NaN or an infinity: any score made of them would be one."""
        odd = (~torch.isfinite(features).flatten(1).all(dim=1)).nonzero().flatten().tolist()
        if odd:
            images = f"{len(odd)} of {counted(len(paths), 'image')}"
            what = f"{self._clip.fingerprint.name} gives {images} features that are no numbers"
            remedy = remedy or f"Delete {self.shards.folder} and try again"
            raise ModelError(f"{what}, the first is {paths[odd[0]]}", remedy=remedy)

    def _extract(self, paths: dict[bytes, Path]) -> dict[bytes, str]:
        """Encode and store what is not in the shards yet; the reasons of unreadable images by content."""
        state = PartialState(cpu=self._clip.device.type == "cpu")
        # One process decides what is missing: the others may see files that a faster one has written meanwhile.
        [missing] = broadcast_object_list([{d: path for d, path in paths.items() if d not in self.shards}])
        if not missing:
            return {}
        mine = dict(list(missing.items())[state.process_index :: state.num_processes])
        problems = self._encode(mine, show=state.is_main_process)
        state.wait_for_everyone()
        problems = dict(gather_object(list(problems.items())))
        self.shards.open()
        if any(digest not in self.shards and digest not in problems for digest in missing):
            raise DataError(
                "features made by another process cannot be seen",
                where=str(self.shards.folder),
                remedy="Set IPO_CACHE to a folder that all machines share",
            )
        return problems

    def _encode(self, paths: dict[bytes, Path], show: bool) -> dict[bytes, str]:
        """Encode and store these images, with a bar if `show`; reasons of unreadable ones."""
        digests, rows, problems = list(paths), dict[bytes, Tensor](), dict[bytes, str]()
        decoded = decode(list(paths.values()), self._clip.preprocess, self._workers, digests)
        outcomes = zip(digests, decoded, strict=True)
        batch: dict[bytes, Tensor] = {}
        try:
            for digest, outcome in track(outcomes, self._kind.name, len(digests)) if show else outcomes:
                if isinstance(outcome, str):
                    problems[digest] = outcome
                    continue
                batch[digest] = outcome
                if len(batch) == self._batch:
                    rows |= self._encode_batch(batch, paths)
                    batch = {}
                if len(rows) >= (self._kind.shard_images or SHARD_IMAGES):
                    self.shards.write(rows)
                    rows = {}
            rows |= self._encode_batch(batch, paths) if batch else {}
        finally:
            if rows:
                self.shards.write(rows)
        return problems

    def _encode_batch(self, batch: dict[bytes, Tensor], paths: dict[bytes, Path]) -> dict[bytes, Tensor]:
        """Features of the pixels of each image. A short batch is filled up to the shape of all others."""
        pixels = list(batch.values())
        pixels += pixels[-1:] * (self._batch - len(pixels))
        features = self._kind.encode(torch.stack(pixels))[: len(batch)].to(self._kind.dtype)
        self.require_numbers(features, [paths[digest] for digest in batch], "Are its weights whole? Or " + _PRECISION)
        return dict(zip(batch, features, strict=True))

    def _report(self, problems: dict[Path, str], count: int) -> None:
        """Name unreadable images: in a warning where they may be left out, in a `DataError` otherwise."""
        first = "; ".join(f"{path}: {reason}" for path, reason in list(problems.items())[:_NAMED])
        message = f"{len(problems)} of {counted(count, 'image')} cannot be read: {first}"
        message += f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        if not self._skip_unreadable:
            raise DataError(
                message,
                remedy="Replace or remove them, or leave them out: --set data.skip_unreadable=true "
                "(for a run that has begun: replace them, or set it in the run's config.toml)",
            )
        _log.warning("left out: %s", message)


class ImageFeatureStore(Extraction):
    """Global features of image files; see `Extraction`. `folder` has one folder for each model."""

    def __init__(
        self, clip: ClipModel, folder: Path, *, workers: int = 2, batch_size: int = 64, skip_unreadable: bool = False
    ) -> None:
        kind = FeatureKind("image features", (clip.dim,), clip.encode_images)
        options = {"workers": workers, "batch_size": batch_size}
        super().__init__(clip, folder / clip.fingerprint.key, kind, **options, skip_unreadable=skip_unreadable)

    def load(self, items: Sequence[Item]) -> tuple[tuple[Item, ...], Tensor]:
        """The readable ones of `items`, in order, and their features (N, D) on the device of the model.

        Raises `DataError` that counts and names unreadable images, after the features of the others were stored.
        """
        kept, digests = self.ensure(items)
        features = self.shards.gather(digests)
        self.require_numbers(features, [item.path for item in kept])
        return kept, features.to(self._clip.device)


def images_at_once(clip: ClipModel, wanted: int) -> int:
    """Images of a batch, which has one shape wherever features are made."""
    return min(wanted, _CPU_BATCH) if clip.device.type == "cpu" else wanted


def feature_store(settings: ClipSettings, clip: ClipModel, *, skip_unreadable: bool) -> ImageFeatureStore:
    """The image feature store that the settings describe, in the cache folder."""
    folder = cache_folder() / "features"
    options = {"workers": settings.workers, "batch_size": settings.image_batch}
    return ImageFeatureStore(clip, folder, **options, skip_unreadable=skip_unreadable)
