"""In which look something is shown: a photograph, a sketch, a painting. Zero-shot, by the text side of `mini`.

The words and figures of each look are in `templates/looks.toml`; they were found with `mini` and hold for it alone.
Shape legend as in `ipo.clip.base`; K looks, each in W wordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from ipo.render import templates_folder
from ipo.store.toml import read_toml

FILE = "looks.toml"


class TextSide(Protocol):
    """What looks are told by."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts to features (N, D) of unit length."""


class Look(BaseModel):
    """One look: what it is called, in which wordings it is put to the model, and what these usually score."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    words: list[str]
    usual: float


class Looks(BaseModel):
    """All looks that can be told apart; one that is not ahead of the others by `margin` is not named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    margin: float
    look: list[Look]

    @torch.no_grad()
    def of(self, model: TextSide, images: Tensor, objects: Sequence[str]) -> list[str | None]:
        """The look of each image, by its feature (B, D) and what it shows; None where the model is not sure."""
        scores = torch.stack([self._scores(model, one, images, objects) for one in self.look], dim=1)
        best = scores.topk(2, dim=1)
        ahead = best.values[:, 0] - best.values[:, 1]
        return [
            self.look[index].name if lead >= self.margin else None
            for index, lead in zip(best.indices[:, 0].tolist(), ahead.tolist(), strict=True)
        ]

    def _scores(self, model: TextSide, look: Look, images: Tensor, objects: Sequence[str]) -> Tensor:
        """How far each image (B,) is its object in this look, above what is usual."""
        texts = model.encode_texts([words.format(name) for words in look.words for name in objects])
        return (texts.view(len(look.words), *images.shape) * images).sum(dim=-1).mean(dim=0) - look.usual


def read_looks() -> Looks:
    """The looks that are shipped."""
    return Looks.model_validate(read_toml(templates_folder() / FILE))
