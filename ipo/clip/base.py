"""The contract of a CLIP-like model. Everything above it works with any object that keeps this contract.

Shape legend: B images or prompt variants, C classes, D feature width, L tokens, M context vectors, N texts, P patches
of an image, W token embedding width, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import Tensor, nn


@dataclass(frozen=True)
class Fingerprint:
    """Which model made a feature.

    Its `name`, a hash of its `weights` and of how it computes with them, its `preprocessing` and its `precision`.
    """

    name: str
    weights: str
    preprocessing: str
    precision: str = "float32"

    @property
    def key(self) -> str:
        """Short hash over all the fields, for cache keys."""
        fields = "\n".join((self.name, self.weights, self.preprocessing, self.precision))
        return hashlib.sha256(fields.encode()).hexdigest()[:16]


class ClipModel(Protocol):
    """A frozen image tower and a frozen text tower with a shared feature space.

    All features are of unit length and float32, whatever the precision of the towers; `unit=False` gives those of texts
    as they are before they are brought to unit length (a model that has no such step gives the same). The model is in
    eval mode and its weights do not require gradients; `encode_embeddings` carries gradients to the context vectors
    alone.
    """

    @property
    def fingerprint(self) -> Fingerprint:
        """Identity of the model for run records and caches."""

    @property
    def device(self) -> torch.device:
        """Where the towers are and where features are returned."""

    @property
    def dim(self) -> int:
        """D, the feature width."""

    @property
    def width(self) -> int:
        """W, the width of token embeddings and so of context vectors."""

    @property
    def context_length(self) -> int:
        """Most tokens of a text, start and end tokens included."""

    @property
    def logit_scale(self) -> float:
        """Factor on the cosine (about 100 for CLIP), already exponentiated."""

    def preprocess(self, image: Image) -> Tensor:
        """The test-time transform: an RGB image to pixels (3, H, W), float32, on the CPU. Picklable for workers."""

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) to image features (B, D). No gradient."""

    @property
    def patch_count(self) -> int:
        """P, the patches that an image is cut into; 0 for a model that cannot tell features of theirs."""

    def encode_patches(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) to features (B, 1 + P, D) of whole images and of their patches, in the space of texts.

        They are as they are before they are brought to unit length. No gradient. Not for a model without patches.
        """

    def encode_texts(self, texts: Sequence[str], unit: bool = True) -> Tensor:
        """Texts to text features (N, D). No gradient. Raises `PromptError` for a text longer than the context."""

    def use_text_cache(self, path: Path | None) -> None:
        """Keep the features of texts in this SQLite file as well as in memory; None keeps them in memory only."""

    def token_count(self, text: str) -> int:
        """Tokens of `text`, start and end tokens included, never truncated."""

    def embed_words(self, text: str) -> Tensor:
        """Token embeddings (M, W) of `text` without start and end tokens and without positions."""

    def vocabulary(self) -> tuple[list[str], Tensor]:
        """Readable form of each token, and all token embeddings (V, W)."""

    def encode_embeddings(
        self,
        classnames: Sequence[str],
        before: Tensor,
        after: Tensor | None = None,
        tail: str = ".",
        unit: bool = True,
    ) -> Tensor:
        """Text features (B, C, D) of [start] before, class name, after, tail [end], with gradient to the contexts.

        `before` is (B, 1, M, W) where all classes share the context and (B, C, M, W) where each has its own; B is 1
        for one context, or the number of images or samples that have one each. M may be 0. `after`, shaped alike,
        stands between the class name and the `tail` (CoOp's middle and front positions).
        """

    def encode_tokens(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Text features (N, D) of raw token ids, start and end tokens added (Lipsum-FT's random texts). No gradient."""

    def image_tower(self) -> nn.Module:
        """A trainable copy of the image side: pixels (B, 3, H, W) to unit-length features (B, D), with gradient."""
