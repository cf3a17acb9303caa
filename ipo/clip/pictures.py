"""Image files as pixels, decoded where a data loader wants it: in this process or in its workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL.Image import Image
from torch import Tensor
from torch.utils.data import Dataset

from ipo.data.images import load_image
from ipo.errors import DataError


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
