"""The captions of a run: made at its start, kept in its folder, and read back when it is gone on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ipo.captions.base import Captioner
from ipo.errors import RunError
from ipo.llm.base import UNPAID, Spent
from ipo.llm.prices import require_price
from ipo.store.files import checked, json_lines, parse_rows


@dataclass(frozen=True)
class Captions:
    """What is said of the training images, and by whom."""

    captioner: str = "none"
    texts: tuple[str, ...] = ()
    """One description an image, in the order of the training images; none without a captioner."""
    spent: Spent = UNPAID
    refusals: tuple[str, ...] = ()
    """Why each image has none, in the words of the model or server; empty where there is nothing to say."""

    def rows(self, images: Sequence[str]) -> str:
        """The file that a run keeps of them; `images` are the paths below the folder of the dataset."""
        named = zip(images, self.texts, self.refusals or [""] * len(images), strict=True)
        return json_lines(
            {"image": image, "caption": text} | ({"refusal": why} if why else {}) for image, text, why in named
        )


NO_CAPTIONS = Captions()


def make_captions(captioner: Captioner | None, images: Sequence[Path], *, priced: bool) -> Captions:
    """Have the captioner describe `images`, if there is one.

    `priced` asks for a price of what is paid for, and raises `ConfigError` before the first image where there is none.
    """
    if captioner is None:
        return NO_CAPTIONS
    if priced and captioner.spent.model:
        require_price(captioner.spent.model)
    texts = tuple(captioner.caption(list(images)))
    refusals = tuple(captioner.refusals.get(path, "") for path in images)
    return Captions(captioner.name, texts, captioner.spent, refusals)


def read_captions(file: Path, run: Mapping[str, Any], images: Sequence[str]) -> Captions:
    """The captions that a run was started with; `run` is its `run.json`. `RunError` for those of other images."""
    rows = parse_rows(file, _caption)
    captioner = run.get("captioner", "none")
    if captioner != "none" and [image for image, _ in rows] != list(images):
        remedy = "Restore the file or the images, or start a new run"
        raise RunError("the captions are not those of the training images", where=str(file), remedy=remedy)
    return Captions(captioner, tuple(text for _, text in rows), Spent(**run.get("caption_usage", {})))


def _caption(row: dict[str, Any]) -> tuple[str, str]:
    texts = _texts(row)
    return texts["image"], texts["caption"]


_texts = checked(dict[str, str])
