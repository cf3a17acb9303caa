"""Pictures of a report: which test images the method put right and wrong, and thumbnails of them.

The thumbnails are made once, when a run ends and its images are at hand, and kept in the run folder.
"""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

from PIL import Image
from pydantic import Field

from ipo.data.images import load_image
from ipo.errors import DataError
from ipo.runs.folder import RunFolder, read_run_json
from ipo.runs.path import CAPTIONS_FILE
from ipo.runs.predictions import Predictions, spread
from ipo.runs.result import Part, checked_content
from ipo.screen import printable, safe_line
from ipo.store.disk import writing
from ipo.store.files import json_text, parse_rows

PICTURES_FILE = "pictures.json"
SIDE = 144
"""Pixels of a thumbnail, each way: 72 on a screen with two pixels a point, and enough to see what it is."""
_QUALITY = 72
_OWN = ("base", "new")
"""The test sets that pictures are taken from: those of the dataset itself."""
_CAPTIONED = 4

_log = logging.getLogger(__name__)


class Thumbnails(Part):
    """The content of `pictures.json`: small JPEG pictures in base64, by their paths below the folder of the dataset."""

    thumbnails: dict[str, Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$")]]


@dataclass(frozen=True)
class Picture:
    """One image of a report: what it is, and what it was taken for before and after."""

    path: str
    label: str
    before: str = ""
    after: str = ""
    caption: str = ""
    thumbnail: str = ""
    """JPEG in base64."""


@dataclass(frozen=True)
class Kind:
    """Test images that fared alike: some of them to show, and how many there are."""

    title: str
    pictures: tuple[Picture, ...]
    total: int
    of: int


TITLES: Mapping[tuple[bool, bool], str] = {
    (False, True): "Right now, wrong before",
    (True, False): "Wrong now, right before",
    (False, False): "Wrong before and after",
}
"""What images are called by whether they were recognised before and after."""


def kinds(predictions: Predictions, after: str, most: int) -> list[Kind]:
    """The kinds of test images under the prompt before and the predictor `after`, at most so many of each."""
    before = predictions.before
    if not before or after not in predictions.predicted:
        return []
    found = []
    for outcome, title in TITLES.items():
        by_set, total, of = list[list[Picture]](), 0, 0
        for name in _OWN:
            if name in predictions.sets and name in predictions.predicted[after]:
                was, now = predictions.correct(before, name), predictions.correct(after, name)
                places = [place for place, pair in enumerate(zip(was, now, strict=True)) if pair == outcome]
                chosen = spread(places, predictions.sets[name].labels, most)
                by_set.append([_picture(predictions, name, after, place) for place in chosen])
                total, of = total + len(places), of + len(was)
        shown = [picture for turn in zip_longest(*by_set) for picture in turn if picture]
        found.append(Kind(title, tuple(shown[:most]), total, of))
    return found


def _picture(predictions: Predictions, name: str, after: str, place: int) -> Picture:
    own = predictions.sets[name]
    was, now = predictions.predicted[predictions.before][name][place], predictions.predicted[after][name][place]
    return Picture(own.images[place], own.classnames[own.labels[place]], own.classnames[was], own.classnames[now])


def captioned(folder: Path) -> list[Picture]:
    """Some training images with their captions, from all over the training set."""
    rows = parse_rows(folder / CAPTIONS_FILE, lambda row: Picture(str(row["image"]), "", caption=str(row["caption"])))
    told = [row for row in rows if row.caption]
    return told[:: max(1, len(told) // _CAPTIONED)][:_CAPTIONED]


def write_thumbnails(folder: RunFolder, root: Path, predictions: Predictions, after: str, most: int) -> None:
    """Keep thumbnails of the images that the report shows; `most` of a kind, and none at all where that is 0.

    An image that cannot be read is left out with a warning: the results are worth more.
    """
    if not most:
        with writing(folder.path / PICTURES_FILE):
            (folder.path / PICTURES_FILE).unlink(missing_ok=True)
        return
    wanted = [picture.path for kind in kinds(predictions, after, most) for picture in kind.pictures]
    wanted += [picture.path for picture in captioned(folder.path)]
    made = dict[str, str]()
    for path in dict.fromkeys(wanted):
        try:
            made[path] = thumbnail(root / path)
        except DataError as error:
            _log.warning("no thumbnail in the report: %s", safe_line(str(error)))
    folder.write(PICTURES_FILE, json_text({"thumbnails": made}) + "\n")


def thumbnail(path: Path) -> str:
    """The middle square of an image as a small JPEG in base64, without the data that its file has beside the pixels.

    Raises `DataError`.
    """
    image = load_image(path)
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    small = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    small.info.clear()
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def read_thumbnails(folder: Path) -> dict[str, str]:
    """The thumbnails of a run by path; none for a run without. Raises `RunError` for a damaged file."""
    if not (folder / PICTURES_FILE).exists():
        return {}
    return checked_content(Thumbnails, read_run_json(folder, PICTURES_FILE), folder, PICTURES_FILE).thumbnails


def shown_pictures(pictures: Sequence[Picture], thumbnails: Mapping[str, str]) -> list[Picture]:
    """The pictures that there are thumbnails of, with them, and with texts that are fit for a page."""
    return [
        replace(
            picture,
            path=printable(picture.path),
            label=printable(picture.label),
            before=printable(picture.before),
            after=printable(picture.after),
            caption=printable(picture.caption),
            thumbnail=thumbnails[picture.path],
        )
        for picture in pictures
        if picture.path in thumbnails
    ]
