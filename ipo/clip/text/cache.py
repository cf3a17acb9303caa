"""Text features that were computed already: the latest in memory and, given a path, all of them in a SQLite file.

Rounding depends on which texts are encoded together, so what one call adds is stored whole or not at all: a run that
is killed and resumed with its file meets the same features, bit for bit, as an unbroken one.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor

from ipo.clip.base import ClipModel
from ipo.errors import RunError
from ipo.store.cache import database

CACHED_TEXTS = 1 << 15
"""Texts whose features are kept in memory: about 64 MB at a width of 512."""

_LOOKUP = 500
"""Texts in one query; SQLite bounds the number of its parameters."""

_TABLE = (
    "CREATE TABLE IF NOT EXISTS features (model TEXT, text TEXT, feature BLOB, PRIMARY KEY (model, text)) WITHOUT ROWID"
)
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


def open_text_cache(clip: ClipModel, path: Path | None) -> TextCache:
    """An empty memory of the texts of `clip`, in front of a file where there is a path.

    Raises `RunError` where the file cannot be made or read.
    """
    return TextCache(store=TextStore(path, clip.fingerprint.key, clip.dim, clip.device) if path is not None else None)


class TextStore:
    """One table of a SQLite file: model key and text to the bytes of a float32 feature."""

    def __init__(self, path: Path, model_key: str, dim: int, device: torch.device) -> None:
        self.path, self._key, self._dim, self._device = path, model_key, dim, device
        with self._opened():
            pass

    def load(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Features of those `texts` that are in the file."""
        rows: list[tuple[str, bytes]] = []
        with self._opened() as opened:
            for begin in range(0, len(texts), _LOOKUP):
                part = texts[begin : begin + _LOOKUP]
                marks = ",".join("?" * len(part))
                query = f"SELECT text, feature FROM features WHERE model = ? AND text IN ({marks})"
                rows += opened.execute(query, (self._key, *part)).fetchall()
        if not rows:
            return {}
        if any(not isinstance(blob, bytes) or len(blob) != 4 * self._dim for _, blob in rows):
            raise RunError(
                f"the text cache holds no features of width {self._dim}", where=str(self.path), remedy=_REMEDY
            )
        table = torch.frombuffer(bytearray(b"".join(blob for _, blob in rows)), dtype=torch.float32)
        features = table.view(len(rows), -1).to(self._device)
        return {text: feature for (text, _), feature in zip(rows, features, strict=True)}

    def save(self, texts: Iterable[str], features: Tensor) -> None:
        """Add features (N, D) of `texts`, all in one transaction."""
        blobs = [row.tobytes() for row in features.float().cpu().numpy()]
        rows = [(self._key, text, blob) for text, blob in zip(texts, blobs, strict=True)]
        with self._opened() as opened, opened:
            opened.executemany("INSERT OR IGNORE INTO features VALUES (?, ?, ?)", rows)

    def _opened(self) -> AbstractContextManager[sqlite3.Connection]:
        return database(self.path, "text cache", _TABLE)
