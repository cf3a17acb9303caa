"""What is to be classified: paths, folders and pictures in memory, and their features, some at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor

from ipo.clip.base import ClipModel
from ipo.clip.features import images_at_once
from ipo.clip.pictures import decode
from ipo.config import ClipSettings
from ipo.data.folders import Listing
from ipo.data.images import to_rgb, upright
from ipo.errors import DataError

Source = str | os.PathLike[str] | Image
"""A file, a folder of files, or a picture in memory."""


@dataclass(frozen=True)
class Picture:
    """One picture by the name that it is shown with: a file, or what is in memory."""

    name: str
    content: Path | Image


def pictures_of(sources: Source | Iterable[Source]) -> list[Picture]:
    """The pictures that are named: of a folder all below it, sorted. Raises `DataError` for a folder without any.

    A file may be missing, or no picture: that is told of it when its turn comes.
    """
    several = sources if not isinstance(sources, str | os.PathLike | Image) else [sources]
    found: list[Picture] = []
    for source in several:
        if isinstance(source, Image):
            found.append(Picture(f"image {len(found)}", source))
        elif (path := Path(source).expanduser()).is_dir():
            inside = Listing(path, []).images(path)
            if not inside:
                what = "there is no picture in the folder"
                raise DataError(what, where=str(path), remedy="The ending decides: .jpg, .png, .webp and others")
            found += [Picture(str(one), one) for one in inside]
        else:
            found.append(Picture(str(path), path))
    return found


def encoded(pictures: Sequence[Picture], clip: ClipModel, settings: ClipSettings) -> Iterator[Tensor | str]:
    """Features (D,) of each picture in order, or why there are none.

    Batches have the shape that they have in a run, so that a picture has the same features as there.
    """
    size = images_at_once(clip, settings.image_batch)
    waiting: list[Tensor | str] = []
    room = size
    for outcome in _pixels(pictures, clip, settings.workers):
        waiting.append(outcome)
        room -= isinstance(outcome, Tensor)
        if not room or len(waiting) >= 8 * size:
            yield from _encode(waiting, clip, size)
            waiting, room = [], size
    yield from _encode(waiting, clip, size)


def _encode(outcomes: Sequence[Tensor | str], clip: ClipModel, size: int) -> list[Tensor | str]:
    pixels = [one for one in outcomes if isinstance(one, Tensor)]
    if not pixels:
        return list(outcomes)
    features = iter(clip.encode_images(torch.stack(pixels + pixels[-1:] * (size - len(pixels))))[: len(pixels)])
    found = [next(features) if isinstance(one, Tensor) else one for one in outcomes]
    odd = "the model gives it features that are no numbers"
    return [odd if isinstance(one, Tensor) and not bool(one.isfinite().all()) else one for one in found]


def _pixels(pictures: Sequence[Picture], clip: ClipModel, workers: int) -> Iterator[Tensor | str]:
    """Pixels (3, H, W) of each picture, or why it cannot be read."""
    files = decode([one.content for one in pictures if isinstance(one.content, Path)], clip.preprocess, workers)
    for one in pictures:
        yield next(files) if isinstance(one.content, Path) else _pixels_of(one.content, clip)


def _pixels_of(image: Image, clip: ClipModel) -> Tensor | str:
    try:
        return clip.preprocess(to_rgb(upright(image)))
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a picture of somebody else's making
        return f"cannot read image: {error}"
