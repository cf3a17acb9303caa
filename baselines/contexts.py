"""Learned context vectors around a class name, shared by the methods that learn such.

Shape legend: B contexts, C classes, M context vectors, W token embedding width, D feature width, N images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import PositiveInt, field_validator
from torch import Tensor

from ipo.clip.base import ClipModel
from ipo.clip.lengths import TextRoom
from ipo.errors import ConfigError, PromptError
from ipo.prompt import CLASS_PLACEHOLDER, Prompt
from ipo.screen import counted
from ipo.task import TaskTexts

from .augment import Augment
from .training import SgdOptions, seeded_generator

Position = Literal["end", "middle", "front"]
"""Where the class name stands: after the context, in the middle of it, or before it."""

RANDOM = "random"


class StartOptions(SgdOptions):
    """How the context vectors start."""

    random_vectors: ClassVar[int] = 16
    """How many vectors a random start has where `n_ctx` does not say."""

    init: str = "a photo of a"
    """Words whose token embeddings the context starts from, or `random` for N(0, 0.02^2)."""
    n_ctx: PositiveInt | None = None
    """Context vectors; as many as `init` has tokens, or 16 for a random start."""

    @field_validator("init")
    @classmethod
    def _is_words(cls, init: str) -> str:
        """Around the class name the method puts the context itself, and without words there would be none."""
        if not init.strip():
            raise ValueError(f"words are wanted, or {RANDOM}")
        return check_words(init)


class ContextOptions(StartOptions):
    """How the context vectors start, and what they are trained on."""

    only_with: ClassVar[Mapping[str, tuple[str, Any]]] = {"crops": ("augment", "cached")}

    augment: Augment = "none"
    """Random crops and flips, as published: `cached` draws from a few crops' features, `fly` encodes each anew."""
    crops: PositiveInt = 8
    """Crops of each image to draw from when they are cached."""


def check_words(words: str) -> str:
    """The same words. Raises `ValueError` where they could not stand before a class name."""
    if not words.strip():
        raise ValueError("words are wanted")
    if CLASS_PLACEHOLDER.casefold() in words.casefold():
        raise ValueError(f"the words around {CLASS_PLACEHOLDER} are wanted, without it")
    try:
        Prompt(f"{words} {CLASS_PLACEHOLDER}")
    except PromptError as error:
        raise ValueError(error.what) from error
    return words


@dataclass(frozen=True)
class Lead:
    """What stands in front of a context: words (n, W), each with learned vectors (A, W) before them; or nothing."""

    learned: tuple[Tensor, ...] = ()
    words: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        return sum(len(part) for part in (*self.learned, *self.words))

    def join(self, context: Tensor) -> Tensor:
        """Contexts (B, 1 or C, M, W) with all of it before them."""
        if not self.words:
            return context
        parts = [part for pair in zip(self.learned, self.words, strict=True) for part in pair]
        front = torch.cat(parts).expand(*context.shape[:2], -1, -1)
        return torch.cat([front, context], dim=2)

    def parameters(self) -> dict[str, Tensor]:
        """What is learned, by names."""
        return {f"attribute.{index}": part for index, part in enumerate(self.learned)}

    def detach(self) -> Lead:
        """The same without gradients."""
        return Lead(tuple(part.detach() for part in self.learned), self.words)


NO_LEAD = Lead()


def first_context(clip: ClipModel, options: StartOptions, seed: int, rows: int = 1) -> Tensor:
    """Trainable context (rows, M, W) as it is before the fit; worded rows are equal, random rows differ."""
    if options.init == RANDOM:
        shape = (rows, options.n_ctx or options.random_vectors, clip.width)
        context = 0.02 * torch.randn(shape, generator=seeded_generator(seed, "context"))
        dtype = clip.vocabulary()[1].dtype
        return context.to(clip.device, dtype).requires_grad_()
    words = clip.embed_words(options.init)
    if not len(words):
        raise ConfigError(f"'{options.init}' has no token for this model", remedy="Give init other words, or random")
    if options.n_ctx not in (None, len(words)):
        raise ConfigError(
            f"n_ctx is {options.n_ctx}, but '{options.init}' has {counted(len(words), 'token')}",
            remedy="Leave n_ctx out, or start with init=random",
        )
    return words.detach().expand(rows, *words.shape).clone().requires_grad_()


def encode_context(
    clip: ClipModel, classnames: Sequence[str], context: Tensor, position: Position = "end", lead: Lead = NO_LEAD
) -> Tensor:
    """Text features (B, C, D) of contexts (B, 1 or C, M, W) with the class names put in, and a full stop."""
    before_count = {"end": context.shape[2], "middle": context.shape[2] // 2, "front": 0}[position]
    before, after = lead.join(context[:, :, :before_count]), context[:, :, before_count:]
    return clip.encode_embeddings(classnames, before, after if after.shape[2] else None)


def require_context_fits(
    task: TaskTexts,
    options: StartOptions,
    position: Position = "end",
    own_classes_only: bool = False,
    lead: int = 0,
) -> None:
    """Raise `ConfigError` where the context is too long for a class name that is tested, or is not as `n_ctx` says.

    `lead` vectors stand before it.
    """
    clip, count = task.clip, lead + first_context(task.clip, options, task.seed).shape[1]
    own, stop = clip.token_count(""), clip.token_count(".")

    def length(name: str) -> int:
        """Tokens around and of a class name; away from the end the stop is a text of its own."""
        return count + (clip.token_count(f"{name}.") if position == "end" else clip.token_count(name) + stop - own)

    room = TextRoom.of(clip, task.classnames) if own_classes_only else task.room
    if excess := room.excess(length):
        remedy = "Lower n_ctx or shorten init, or give the class a shorter name"
        raise ConfigError(
            f"{counted(count, 'context vector')} {'is' if count == 1 else 'are'} too many: {excess}", remedy=remedy
        )


def chunk_size(texts_at_once: int, texts_each: int) -> int:
    """How many contexts of `texts_each` texts to encode together without exceeding `texts_at_once`, at least one."""
    return max(1, texts_at_once // texts_each)
