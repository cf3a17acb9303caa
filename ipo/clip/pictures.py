"""Image files as pixels, decoded in worker processes, or in this one where that is quicker."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ipo.data.images import load_image
from ipo.errors import DataError

_WORTH_A_WORKER = 16
"""Images that take about as long to decode as a worker process takes to start."""

_AHEAD = 16
"""Images that each worker decodes before they are asked for."""


class Pictures(Dataset[Tensor | str]):
    """Pixels (3, H, W) of each file; for one that cannot be read, the reason in words."""

    def __init__(self, paths: Sequence[Path], preprocess: Callable[[Image], Tensor]) -> None:
        self._paths, self._preprocess = paths, preprocess

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            return self._preprocess(load_image(self._paths[index]))
        except DataError as error:
            return error.what


def decode(paths: Sequence[Path], preprocess: Callable[[Image], Tensor], workers: int) -> Iterator[Tensor | str]:
    """Pixels of each image in order, or why it cannot be read, by at most `workers` processes."""
    workers = min(workers, _usable_cores(), len(paths) // _WORTH_A_WORKER)
    # Images travel one by one: whole batches would fill the small shared memory that containers give.
    yield from DataLoader(
        Pictures(paths, preprocess), batch_size=None, num_workers=workers, prefetch_factor=_AHEAD if workers else None
    )


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
