"""Image features, computed once per model and image content, divided among processes, memory-mapped afterwards.

A folder a model holds shards: safetensors files named by what is in them, each written whole. So extraction that was
interrupted keeps what it finished, and processes that write at the same time cannot harm each other. Under
`torchrun` or `accelerate launch` each process encodes its share; the cache folder must be one that all of them see.
All batches have the same shape, so a feature does not depend on the images that happened to be encoded beside it.
Shape legend: N images, D feature width.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ipo.clip.base import ClipModel
from ipo.clip.hashes import DIGEST_BYTES, MEMORY_FILE, ContentHashes
from ipo.clip.pictures import decode
from ipo.config import ClipSettings
from ipo.data.types import Item
from ipo.errors import DataError, ModelError
from ipo.progress import track
from ipo.screen import counted
from ipo.store.cache import cache_folder, cached_files, write_cache

SHARD_IMAGES = 512
"""Features written together: what is lost at most when the process is killed."""

_CPU_BATCH = 8
"""Images encoded at once on a CPU, where more of them gain nothing and a short batch would be padded to its size."""

_NAMED = 5
"""Unreadable images that a message names."""

_PRECISION = "try --set clip.precision=float32"

_log = logging.getLogger(__name__)


class ImageFeatureStore:
    """Features of image files under `clip`, kept in `folder`.

    `workers` processes decode, `batch_size` images are encoded at once. Unreadable images are an error, unless
    `skip_unreadable`: then they are left out and named in a warning.
    """

    def __init__(
        self, clip: ClipModel, folder: Path, *, workers: int = 2, batch_size: int = 64, skip_unreadable: bool = False
    ) -> None:
        self._clip, self._workers, self._skip_unreadable = clip, workers, skip_unreadable
        self._batch = min(batch_size, _CPU_BATCH) if clip.device.type == "cpu" else batch_size
        self._hashes = ContentHashes(folder / MEMORY_FILE)
        self._folder = folder / clip.fingerprint.key
        self._shards: dict[str, Tensor] = {}
        self._rows: dict[bytes, tuple[str, int]] = {}

    def load(self, items: Sequence[Item]) -> tuple[tuple[Item, ...], Tensor]:
        """The readable ones of `items`, in order, and their features (N, D) on the device of the model.

        Raises `DataError` that counts and names unreadable images, after the features of the others were stored.
        """
        hashes, problems = self._hashes.of([item.path for item in items])
        self._open_shards()
        unreadable = self._extract({digest: path for path, digest in hashes.items()})
        problems |= {path: unreadable[digest] for path, digest in hashes.items() if digest in unreadable}
        if problems:
            self._report(problems, len(items))
        kept = tuple(item for item in items if item.path not in problems)
        features = self._gather([hashes[item.path] for item in kept])
        self._require_numbers(features, [item.path for item in kept], f"Delete {self._folder} and try again")
        return kept, features.to(self._clip.device)

    def _open_shards(self) -> None:
        """Map the shards that have appeared since the last look."""
        for path in cached_files(self._folder, "*.safetensors"):
            if path.name in self._shards:
                continue
            try:
                with safe_open(path, framework="pt") as shard:
                    features, digests = shard.get_tensor("features"), shard.get_tensor("digests")
                if features.shape != (len(digests), self._clip.dim) or digests.shape[1:] != (DIGEST_BYTES,):
                    raise ValueError(f"features of shape {tuple(features.shape)}")
            except (SafetensorError, OSError, ValueError) as error:
                raise DataError(f"damaged feature file: {error}", where=str(path), remedy="Delete it") from error
            self._add_shard(path.name, features, digests)

    def _add_shard(self, name: str, features: Tensor, digests: Tensor) -> None:
        self._shards[name] = features
        for row, digest in enumerate(digests.numpy()):
            self._rows.setdefault(digest.tobytes(), (name, row))

    def _extract(self, paths: dict[bytes, Path]) -> dict[bytes, str]:
        """Encode and store what is not in the shards yet; the reasons of unreadable images by content."""
        state = PartialState(cpu=self._clip.device.type == "cpu")
        # One process decides what is missing: the others may see files that a faster one has written meanwhile.
        [missing] = broadcast_object_list([{d: path for d, path in paths.items() if d not in self._rows}])
        if not missing:
            return {}
        mine = dict(list(missing.items())[state.process_index :: state.num_processes])
        problems = self._encode(mine, show=state.is_main_process)
        state.wait_for_everyone()
        problems = dict(gather_object(list(problems.items())))
        self._open_shards()
        if any(digest not in self._rows and digest not in problems for digest in missing):
            raise DataError(
                "features made by another process cannot be seen",
                where=str(self._folder),
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
            for digest, outcome in track(outcomes, "image features", len(digests)) if show else outcomes:
                if isinstance(outcome, str):
                    problems[digest] = outcome
                    continue
                batch[digest] = outcome
                if len(batch) == self._batch:
                    rows |= self._encode_batch(batch, paths)
                    batch = {}
                if len(rows) >= SHARD_IMAGES:
                    self._write(rows)
                    rows = {}
            rows |= self._encode_batch(batch, paths) if batch else {}
        finally:
            if rows:
                self._write(rows)
        return problems

    def _encode_batch(self, batch: dict[bytes, Tensor], paths: dict[bytes, Path]) -> dict[bytes, Tensor]:
        """Features (D,) of the pixels of each image. A short batch is filled up to the shape of all others."""
        pixels = list(batch.values())
        pixels += pixels[-1:] * (self._batch - len(pixels))
        features = self._clip.encode_images(torch.stack(pixels))[: len(batch)]
        self._require_numbers(features, [paths[digest] for digest in batch], "Are its weights whole? Or " + _PRECISION)
        return dict(zip(batch, features, strict=True))

    def _require_numbers(self, features: Tensor, paths: Sequence[Path], remedy: str) -> None:
        """Raise `ModelError` for features (N, D) with a NaN or an infinity: any score made of them would be one."""
        odd = (~torch.isfinite(features).all(dim=-1)).nonzero().flatten().tolist()
        if odd:
            images = f"{len(odd)} of {counted(len(paths), 'image')}"
            what = f"{self._clip.fingerprint.name} gives {images} features that are no numbers"
            raise ModelError(f"{what}, the first is {paths[odd[0]]}", remedy=remedy)

    def _write(self, rows: dict[bytes, Tensor]) -> None:
        """Store features as one shard, named by the images in it; in memory where the cache cannot be written."""
        digests = torch.frombuffer(bytearray(b"".join(rows)), dtype=torch.uint8).view(len(rows), -1)
        name = f"{hashlib.sha256(b''.join(rows)).hexdigest()[:24]}.safetensors"
        features = torch.stack(list(rows.values())).cpu()
        write_cache(self._folder / "model.json", json.dumps(asdict(self._clip.fingerprint), indent=2))
        if not write_cache(self._folder / name, save({"features": features, "digests": digests})):
            self._add_shard(name, features, digests)

    def _gather(self, digests: Sequence[bytes]) -> Tensor:
        """Features (N, D) out of the shards."""
        features = torch.empty(len(digests), self._clip.dim)
        places: dict[str, tuple[list[int], list[int]]] = {}
        for position, digest in enumerate(digests):
            shard, row = self._rows[digest]
            positions, rows = places.setdefault(shard, ([], []))
            positions.append(position)
            rows.append(row)
        for shard, (positions, rows) in places.items():
            features[positions] = self._shards[shard][rows]
        return features

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


def feature_store(settings: ClipSettings, clip: ClipModel, *, skip_unreadable: bool) -> ImageFeatureStore:
    """The image feature store that the settings describe, in the cache folder."""
    folder = cache_folder() / "features"
    options = {"workers": settings.workers, "batch_size": settings.image_batch}
    return ImageFeatureStore(clip, folder, **options, skip_unreadable=skip_unreadable)
