"""The text tower of the offline stand-in: a small BERT read by mean pooling (all-MiniLM-L6-v2).

BERT attends in both directions, so a shared prefix cannot be encoded once; what can be saved is padding: texts of one
length go through together and no position is computed that is not a token.
Shape legend as in `ipo.clip.base`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint
from transformers import BertConfig, BertModel

from ipo.config import Precision
from ipo.errors import ModelError, PromptError

CONTEXT_LENGTH = 256
"""The longest texts that all-MiniLM-L6-v2 is made for, start and end tokens included."""

_BYTES_PER_TOKEN = 32 * 1024
"""Working memory of one token of a text, about: the hidden layers of one block in float32."""


class MiniLM:
    """Texts, token ids or token embeddings to unit-length sentence embeddings (N, D), not yet centred.

    `bert` is the network.
    """

    def __init__(self, bert: nn.Module, tokenizer: Tokenizer, *, precision: Precision, memory_mb: int) -> None:
        self.bert = bert.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._start, self._end = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
        self._words: Tensor = bert.get_parameter("embeddings.word_embeddings.weight")
        self._dtype = getattr(torch, precision)
        self._chunk_tokens = max(CONTEXT_LENGTH, memory_mb * 2**20 // _BYTES_PER_TOKEN)

    @property
    def width(self) -> int:
        """W, the width of token embeddings; equal to D."""
        return int(self._words.shape[1])

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without start and end tokens, never truncated."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Sentence embeddings (N, D) of texts. Raises `PromptError` for one that is longer than the context."""
        ids = self.token_ids(texts)
        for text, row in zip(texts, ids, strict=True):
            if len(row) + 2 > CONTEXT_LENGTH:
                raise PromptError(
                    f"text has {len(row) + 2} tokens, at most {CONTEXT_LENGTH} fit", where=repr(text[:80])
                )
        return self.encode_tokens(ids)

    @torch.no_grad()
    def encode_tokens(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Sentence embeddings (N, D) of token ids, start and end tokens added."""
        features = torch.empty(len(ids), self.width, device=self._words.device)
        for length, rows in _by_length(ids).items():
            for chunk in _chunks(rows, self._chunk_tokens // (length + 2)):
                tokens = torch.tensor([[self._start, *ids[row], self._end] for row in chunk], device=features.device)
                features[torch.tensor(chunk, device=features.device)] = self._pool(self._words[tokens])
        return features

    def word_embeddings(self, ids: Sequence[int]) -> Tensor:
        """Embeddings (L, W) of token ids, without positions."""
        return self._words[torch.tensor(ids, dtype=torch.long, device=self._words.device)]

    def vocabulary(self) -> tuple[list[str], Tensor]:
        """Readable form of each token, and all token embeddings (V, W)."""
        return [self._tokenizer.id_to_token(index) or "" for index in range(len(self._words))], self._words

    def encode_embeddings(self, classnames: Sequence[str], before: Tensor, after: Tensor | None, tail: str) -> Tensor:
        """Sentence embeddings (B, C, D) of before, class name, after, tail, with gradient; see `ClipModel`."""
        after = before[:, :, :0] if after is None else after
        names, ending = self.token_ids(classnames), self.word_embeddings(self.token_ids([tail])[0])
        columns: list[Tensor] = [before.new_empty(0)] * len(names)
        for rows in _by_length(names).values():
            words = torch.stack([self.word_embeddings(names[row]) for row in rows])
            features = self._encode_group(words, _take(before, rows), _take(after, rows), ending)
            for row, feature in zip(rows, features.unbind(dim=1), strict=True):
                columns[row] = feature
        return torch.stack(columns, dim=1)

    def _encode_group(self, names: Tensor, before: Tensor, after: Tensor, ending: Tensor) -> Tensor:
        """Sentence embeddings (B, C, D) for class names (C, L, W) of one length."""
        batch, count = before.shape[0], names.shape[0]
        start, end = self._words[[self._start]], self._words[[self._end]]
        parts = [start, before, names, after, ending, end]
        embeddings = torch.cat([part.expand(batch, count, *part.shape[-2:]) for part in parts], dim=2).flatten(0, 1)
        if embeddings.shape[1] > CONTEXT_LENGTH:
            raise PromptError(f"context, class name and tail have {embeddings.shape[1]} tokens; {CONTEXT_LENGTH} fit")
        chunks = torch.split(embeddings, max(1, self._chunk_tokens // embeddings.shape[1]))
        # Within the memory bound activations are kept for the backward pass, beyond it they are computed again.
        keep = len(chunks) == 1 or not embeddings.requires_grad
        pooled = [self._pool(c) if keep else checkpoint(self._pool, c, use_reentrant=False) for c in chunks]
        return torch.cat(pooled).view(batch, count, -1)

    def _pool(self, embeddings: Tensor) -> Tensor:
        """Mean over the tokens of the last hidden states: (N, L, W) to (N, D), float32, unit length."""
        low = self._dtype != torch.float32
        with torch.autocast(embeddings.device.type, dtype=self._dtype if low else None, enabled=low):
            hidden: Tensor = self.bert(inputs_embeds=embeddings).last_hidden_state
        return normalize(hidden.float().mean(dim=1), dim=-1)


def load_minilm(folder: Path, *, device: torch.device, precision: Precision, memory_mb: int) -> MiniLM:
    """The text tower from a folder with `config.json`, `model.safetensors` and `tokenizer.json`."""
    bert: nn.Module = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False)
    missing, _ = bert.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    if missing:
        raise ModelError(
            f"weights lack {', '.join(missing[:3])}", where=str(folder), remedy="Install the package again"
        )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return MiniLM(bert.to(device), tokenizer, precision=precision, memory_mb=memory_mb)


def _take(context: Tensor, rows: Sequence[int]) -> Tensor:
    """The classes `rows` of a context (B, C, M, W); a context (B, 1, M, W) as it is, for it serves every class."""
    return context if context.shape[1] == 1 else context[:, list(rows)]


def _by_length(ids: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    """Indices of the rows of each length, shortest first."""
    groups: dict[int, list[int]] = {}
    for index in sorted(range(len(ids)), key=lambda index: len(ids[index])):
        groups.setdefault(len(ids[index]), []).append(index)
    return groups


def _chunks(rows: Sequence[int], size: int) -> Iterable[Sequence[int]]:
    """`rows` in pieces of at most `size`, and of one row at least."""
    size = max(1, size)
    return (rows[start : start + size] for start in range(0, len(rows), size))
