"""Image files as pixels, decoded in worker processes, or in this one where that is quicker."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL.Image import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ipo.clip.hashes import digest_of
from ipo.data.images import decode_image, read_file
from ipo.errors import DataError

_WORTH_A_WORKER = 16
"""Images that take about as long to decode as a worker process takes to start."""

_AHEAD = 16
"""Images that each worker decodes before they are asked for."""


class Pictures(Dataset[Tensor | str]):
    """Pixels (3, H, W) of each file; for one that cannot be read, the reason in words.

    Where content hashes are given, pixels are those of the very bytes with this hash: no picture can pass for another
    that was put in its place meanwhile.
    """

    def __init__(
        self, paths: Sequence[Path], preprocess: Callable[[Image], Tensor], digests: Sequence[bytes] = ()
    ) -> None:
        self._paths, self._preprocess, self._digests = paths, preprocess, digests

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor | str:
        path = self._paths[index]
        try:
            data = read_file(path)
            if self._digests and digest_of(data) != self._digests[index]:
                return "the file was changed while it was read"
            return self._preprocess(decode_image(data, path))
        except DataError as error:
            return error.what


def decode(
    paths: Sequence[Path], preprocess: Callable[[Image], Tensor], workers: int, digests: Sequence[bytes] = ()
) -> Iterator[Tensor | str]:
    """Pixels of each image in order, or why it cannot be read, by at most `workers` processes."""
    workers = min(workers, _usable_cores(), len(paths) // _WORTH_A_WORKER)
    pictures = Pictures(paths, preprocess, digests)
    # Images travel one by one: whole batches would fill the small shared memory that containers give.
    yield from DataLoader(pictures, batch_size=None, num_workers=workers, prefetch_factor=_AHEAD if workers else None)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
