"""Features of images in safetensors files, by the content of the images; mapped into memory and read when needed.

A file, or shard, is named by what is in it and written whole. So extraction that was interrupted keeps what it
finished, and processes that write at the same time cannot harm each other.
Shape legend: N images; a feature has any shape.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ipo.clip.hashes import DIGEST_BYTES
from ipo.errors import DataError
from ipo.store.cache import cached_files, write_cache


class Shards:
    """Features of one shape and type in `folder`, whose model `about` describes."""

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: torch.dtype, about: str) -> None:
        self.folder, self.shape, self.dtype, self._about = folder, shape, dtype, about
        self._features: dict[str, Tensor] = {}
        self._rows: dict[bytes, tuple[str, int]] = {}

    def open(self) -> None:
        """Map the files that have appeared since the last look. Raises `DataError` for a damaged one."""
        for path in cached_files(self.folder, "*.safetensors"):
            if path.name in self._features:
                continue
            try:
                with safe_open(path, framework="pt") as shard:
                    features, digests = shard.get_tensor("features"), shard.get_tensor("digests")
                if features.shape != (len(digests), *self.shape) or digests.shape[1:] != (DIGEST_BYTES,):
                    raise ValueError(f"features of shape {tuple(features.shape)}")
            except (SafetensorError, OSError, ValueError) as error:
                raise DataError(f"damaged feature file: {error}", where=str(path), remedy="Delete it") from error
            self._add(path.name, features, digests)

    def __contains__(self, digest: bytes) -> bool:
        """Whether the image of this content has a feature."""
        return digest in self._rows

    def __getitem__(self, digest: bytes) -> Tensor:
        """The feature of the image of this content, where it lies."""
        name, row = self._rows[digest]
        return self._features[name][row]

    def gather(self, digests: Sequence[bytes]) -> Tensor:
        """A copy of some features (N, ...)."""
        features = torch.empty(len(digests), *self.shape, dtype=self.dtype)
        places: dict[str, tuple[list[int], list[int]]] = {}
        for position, digest in enumerate(digests):
            name, row = self._rows[digest]
            positions, rows = places.setdefault(name, ([], []))
            positions.append(position)
            rows.append(row)
        for name, (positions, rows) in places.items():
            features[positions] = self._features[name][rows]
        return features

    def write(self, rows: Mapping[bytes, Tensor]) -> None:
        """Store features as one file; in memory where the cache cannot be written."""
        digests = torch.frombuffer(bytearray(b"".join(rows)), dtype=torch.uint8).view(len(rows), -1)
        name = f"{hashlib.sha256(b''.join(rows)).hexdigest()[:24]}.safetensors"
        features = torch.stack(list(rows.values())).cpu()
        write_cache(self.folder / "model.json", self._about)
        if not write_cache(self.folder / name, save({"features": features, "digests": digests})):
            self._add(name, features, digests)

    def _add(self, name: str, features: Tensor, digests: Tensor) -> None:
        self._features[name] = features
        for row, digest in enumerate(digests.numpy()):
            self._rows.setdefault(digest.tobytes(), (name, row))
