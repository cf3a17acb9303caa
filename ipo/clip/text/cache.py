"""Text features that were computed already: the latest in memory and, given a path, all of them in a SQLite file.

Rounding depends on which texts are encoded together, so what one call adds is stored whole or not at all: a run that
is killed and resumed with its file meets the same features, bit for bit, as an unbroken one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ipo.clip.base import ClipModel
from ipo.errors import RunError
from ipo.store.table import Table

CACHED_TEXTS = 1 << 15
"""Texts whose features are kept in memory: about 64 MB at a width of 512."""

_REMEDY = "Delete it; the features are computed again"


class TextCache:
    """Features (D,) by text, for one model."""

    def __init__(self, capacity: int = CACHED_TEXTS, store: TextStore | None = None) -> None:
        self._capacity, self._store = capacity, store
        self._recent: OrderedDict[str, Tensor] = OrderedDict()

    def fetch(self, texts: Sequence[str], encode: Callable[[list[str]], Tensor]) -> Tensor:
        """Features (N, D) of `texts`; those that are not known come from one call of `encode`."""
        found = {text: self._recent[text] for text in texts if text in self._recent}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing and self._store is not None:
            stored = self._store.load(missing)
            missing = [text for text in missing if text not in stored]
            found |= stored
        if missing:
            features = encode(missing)
            if self._store is not None:
                self._store.save(missing, features)
            found |= dict(zip(missing, features, strict=True))
        self._remember(found)
        return torch.stack([found[text] for text in texts])

    def _remember(self, found: dict[str, Tensor]) -> None:
        for text, feature in found.items():
            self._recent[text] = feature
            self._recent.move_to_end(text)
        while len(self._recent) > self._capacity:
            self._recent.popitem(last=False)


def open_text_caches(clip: ClipModel, path: Path | None) -> dict[bool, TextCache]:
    """Empty memories of the texts of `clip` by whether features are of unit length, in front of a file if any.

    Each has a memory, and in the file a key, of its own, so that neither can be taken for the other.
    Raises `RunError` where the file cannot be made or read.
    """
    if path is None:
        return {True: TextCache(), False: TextCache()}
    keys = {True: clip.fingerprint.key, False: f"{clip.fingerprint.key} raw"}
    return {unit: TextCache(store=TextStore(path, key, clip.dim, clip.device)) for unit, key in keys.items()}


class TextStore:
    """One table of a SQLite file: model key and text to the bytes of a float32 feature."""

    def __init__(self, path: Path, model_key: str, dim: int, device: torch.device) -> None:
        self._table = Table(path, "text cache", "features", ("model TEXT", "text TEXT", "feature BLOB"))
        self._key, self._dim, self._device = model_key, dim, device
        with self._table.opened():
            pass

    def load(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Features of those `texts` that are in the file."""
        with self._table.opened() as opened:
            found = opened.load(self._key, texts)
        if not found:
            return {}
        if any(not isinstance(blob, bytes) or len(blob) != 4 * self._dim for blob in found.values()):
            what = f"the text cache holds no features of width {self._dim}"
            raise RunError(what, where=str(self._table.path), remedy=_REMEDY)
        features = torch.frombuffer(bytearray(b"".join(found.values())), dtype=torch.float32)
        return dict(zip(found, features.view(len(found), -1).to(self._device), strict=True))

    def save(self, texts: Iterable[str], features: Tensor) -> None:
        """Add features (N, D) of `texts`, all in one transaction."""
        blobs = [row.tobytes() for row in features.float().cpu().numpy()]
        with self._table.opened() as opened:
            opened.save(self._key, zip(texts, blobs, strict=True))
