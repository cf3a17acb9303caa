"""The plain text path: `model.encode_text` on padded ids, for towers beyond the engine, and its oracle."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ipo.clip.text.tokens import Tokens, is_vector, vector_rows
from ipo.errors import ModelError

PLACEHOLDER_WORD = "x"


def precision_context(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Autocast to `dtype`, or nothing where the weights' own precision is to be kept."""
    if dtype in (torch.float32, torch.float64):
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


class TextPath(Protocol):
    """A way through the text tower."""

    def encode(self, sequences: Sequence[Sequence[int]], vectors: Tensor | None = None, unit: bool = True) -> Tensor:
        """Features (N, D) of id sequences whose negative ids -1-r name rows of `vectors` (R, W), unit if asked."""


class PlainText:
    """Encodes padded sequences in batches. A negative id -1-r stands for row r of the given context vectors."""

    def __init__(self, model: Any, tokens: Tokens, dtype: torch.dtype, batch: int = 64) -> None:
        self._model, self._tokens, self._dtype, self._batch = model, tokens, dtype, batch
        self._embedding = token_embedding(model)
        self._placeholder = tokens.words(PLACEHOLDER_WORD)[0]

    def encode(self, sequences: Sequence[Sequence[int]], vectors: Tensor | None = None, unit: bool = True) -> Tensor:
        """Features (N, D) of id sequences whose negative ids name rows of `vectors` (R, W); unit length if asked."""
        batches = [sequences[i : i + self._batch] for i in range(0, len(sequences), self._batch)]
        features = torch.cat([self._encode_batch(batch, vectors) for batch in batches])
        return normalize(features, dim=-1) if unit else features

    def _encode_batch(self, sequences: Sequence[Sequence[int]], vectors: Tensor | None) -> Tensor:
        weight = self._embedding.weight
        ids = self._tokens.padded(sequences).to(weight.device)
        visible = torch.where(is_vector(ids), self._placeholder, ids)

        def insert(_module: nn.Module, _inputs: Any, embedded: Tensor) -> Tensor:
            assert vectors is not None
            rows = vectors.to(embedded.dtype)[vector_rows(ids)]
            return torch.where(is_vector(ids)[..., None], rows, embedded)

        hook = self._embedding.register_forward_hook(insert) if vectors is not None else None
        try:
            with precision_context(weight.device, self._dtype):
                features: Tensor = self._model.encode_text(visible, normalize=False)
        finally:
            if hook is not None:
                hook.remove()
        return features.to(torch.promote_types(features.dtype, torch.float32))


def token_embedding(model: Any) -> nn.Embedding:
    """The token embedding of any open_clip text tower."""
    tower = getattr(model, "text", model)
    found = getattr(tower, "token_embedding", None) or tower.transformer.get_input_embeddings()
    if not isinstance(found, nn.Embedding):
        raise ModelError("the text tower has no token embedding")
    return found
