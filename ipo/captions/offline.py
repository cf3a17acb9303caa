"""The offline describer: which objects `mini` finds an image to resemble and in which look, as surely as it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ipo.captions.base import short_hash
from ipo.captions.looks import read_looks
from ipo.clip.base import ClipModel
from ipo.clip.load import resolve_device
from ipo.clip.mini import load_mini
from ipo.clip.pictures import decode
from ipo.config import OFFLINE_CLIP, ClipSettings
from ipo.errors import DataError
from ipo.llm.base import UNPAID
from ipo.render import render

TEMPLATE = "describe.j2"
LABELS = 3
_BATCH = 8


class LabelModel(ClipModel, Protocol):
    """A CLIP that also knows ImageNet's labels, as `mini` does."""

    def top_labels(self, pixels: Tensor, count: int) -> list[list[tuple[str, float]]]:
        """For each image of pixels (B, 3, H, W) its `count` likeliest labels with their probabilities."""


class OfflineDescriber:
    """Names the ImageNet labels that an image most resembles, with probabilities, and its look where that is plain.

    It sees with `mini`, whichever model a run scores with.
    """

    spent = UNPAID

    def __init__(self, mini: LabelModel, workers: int) -> None:
        self._mini, self._workers, self._looks = mini, workers, read_looks()
        labels = [{"name": str(n), "percent": 100 - n} for n in range(LABELS)]
        wording = render(TEMPLATE, labels=labels, look=None) + self._looks.model_dump_json()
        self.name = f"describe by mini {mini.fingerprint.key}, wording {short_hash(wording)}"

    def describe(self, images: Sequence[Path]) -> Iterator[tuple[Path, str]]:
        """One sentence an image."""
        decoded = zip(images, decode(images, self._mini.preprocess, self._workers), strict=True)
        while batch := list(islice(decoded, _BATCH)):
            pixels = torch.stack([_readable(path, outcome) for path, outcome in batch])
            found = self._mini.top_labels(pixels, LABELS)
            looks = self._looks.of(self._mini, self._mini.encode_images(pixels), [labels[0][0] for labels in found])
            for (path, _), labels, look in zip(batch, found, looks, strict=True):
                rows = [{"name": name, "percent": round(100 * probability)} for name, probability in labels]
                yield path, render(TEMPLATE, labels=rows, look=look)


def _readable(path: Path, outcome: Tensor | str) -> Tensor:
    if isinstance(outcome, str):
        raise DataError(outcome, where=str(path))
    return outcome


def load_offline_describer(settings: ClipSettings) -> OfflineDescriber:
    """The describer on the device and in the precision of `settings`."""
    device, memory = resolve_device(settings.device), settings.text_memory_mb
    mini = load_mini(device=device, precision=settings.precision, text_memory_mb=memory, name=OFFLINE_CLIP)
    return OfflineDescriber(mini, settings.workers)
