"""The text engine: CLIP's causal text tower without padding, without repeated prefixes, exact to rounding.

Rows of a pack go through the blocks together. Keys and values of a prefix are computed once and read by all tails
behind it; the last block computes nothing beyond keys and values except at the end tokens. Rows may be context
vectors instead of tokens, and gradients flow back to them through the shared prefix. All indices are made on the CPU
beforehand, so that nothing waits for a CUDA device before the last pack is under way; that part awaits a test on one.

Shape legend: D feature width, G sequences of a group, H heads, L keys, N sequences, R vectors, S new rows of a
sequence, T rows of a pack, W tower width.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from ipo.clip.text.packing import Group, Pack, packs, sent
from ipo.clip.text.tokens import is_vector, vector_rows
from ipo.clip.text.tower import Block, TextTower

CPU_ROWS = 2048
"""Rows at once on a CPU: enough to keep its cores at their peak, and few enough that activations stay in cache."""
WORKING_WIDTHS = 24
"""Floats that a block holds for a row, in tower widths: norms, queries, keys, values, the widened MLP."""


class TextEngine:
    """Encodes id sequences some of whose ids are rows of given context vectors (see `vector_id`)."""

    def __init__(self, tower: TextTower, memory_mb: int) -> None:
        self.tower = tower
        self._memory = memory_mb << 20

    def encode(self, sequences: Sequence[Sequence[int]], vectors: Tensor | None = None, unit: bool = True) -> Tensor:
        """Features (N, D) of id sequences, of unit length where asked, with gradient to `vectors` (R, W).

        Sequences that need more than the memory bound go in several packs; with gradient, each pack is then computed
        again on the way back instead of being kept.
        """
        device = self.tower.embedding.device
        cut = [tuple(ids[: self.tower.pooled(ids) + 1]) for ids in sequences]
        distinct = list(dict.fromkeys(cut))
        with_grad = vectors is not None and vectors.requires_grad and torch.is_grad_enabled()
        plan = list(packs(distinct, self.max_rows(with_grad), partial(self.memory_share, with_grad)))
        outputs = [self._encode_pack(pack.to(device), vectors, with_grad and len(plan) > 1) for pack in plan]
        place = {member: row for row, member in enumerate(m for pack in plan for m in pack.members)}
        number = {ids: place[index] for index, ids in enumerate(distinct)}
        order = sent(torch.tensor([number[ids] for ids in cut], dtype=torch.long), device)
        features = torch.cat(outputs)
        return (normalize(features, dim=-1) if unit else features).index_select(0, order)

    def max_rows(self, with_grad: bool) -> int:
        """Most rows of a pack, whatever the memory."""
        return CPU_ROWS if self.tower.embedding.device.type == "cpu" and not with_grad else sys.maxsize

    def memory_share(self, with_grad: bool, rows: int, keys: int) -> float:
        """Share of the memory bound that a tail of `rows` with a path of `keys` takes: rows, key table and mask.

        With gradient, every block keeps its own.
        """
        width, size = self.tower.embedding.shape[1], torch.finfo(self.tower.embedding.dtype).bits // 8
        floats = rows * WORKING_WIDTHS * width + keys * (2 * width + rows)
        return floats * size * (len(self.tower.blocks) if with_grad else 1) / self._memory

    def _encode_pack(self, pack: Pack, vectors: Tensor | None, recompute: bool) -> Tensor:
        if recompute:
            features: Tensor = checkpoint(self._forward, pack, vectors, use_reentrant=False)
            return features
        return self._forward(pack, vectors)

    def _forward(self, pack: Pack, vectors: Tensor | None) -> Tensor:
        """Features (N, D) of the sequences of a pack, in its order, of whatever length the tower gives them."""
        tower = self.tower
        x = self._embed(pack, vectors)
        masks = [causal_mask(group, tower.dtype) for group in pack.groups]
        for block in tower.blocks[:-1]:
            h = block.norm_1(x).to(tower.dtype)
            queries, memory = torch.split(block.qkv(h), [h.shape[1], 2 * h.shape[1]], dim=1)
            parts = [_tails(queries, group) for group in pack.groups]
            x = _finish(block, x, _attend(block, parts, memory, pack, masks))
        block = tower.blocks[-1]
        h = block.norm_1(x).to(tower.dtype)
        width = h.shape[1]
        memory = block.qkv.rows(width, 3 * width)(h)
        queries = block.qkv.rows(0, width)(h.index_select(0, pack.ends))
        parts = [part[:, None] for part in torch.split(queries, [len(group.keys) for group in pack.groups])]
        attended = _attend(block, parts, memory, pack, [mask[:, :, -1:] for mask in masks])
        x = tower.norm(_finish(block, x.index_select(0, pack.ends), attended))
        return x if tower.projection is None else tower.projection(x)

    def _embed(self, pack: Pack, vectors: Tensor | None) -> Tensor:
        """Embeddings (T, W) of a pack's rows, with their positions."""
        weight = self.tower.embedding
        x = weight.index_select(0, pack.ids.clamp(min=0))
        if vectors is not None:
            chosen = vectors.to(weight).index_select(0, vector_rows(pack.ids))
            x = torch.where(is_vector(pack.ids)[:, None], chosen, x)
        return x + self.tower.positions.index_select(0, pack.positions)


def causal_mask(group: Group, dtype: torch.dtype) -> Tensor:
    """Additive mask (G, 1, S, L): query s of a tail reads its shared keys and its own up to s."""
    reach = group.shared[:, None] + torch.arange(group.size, device=group.keys.device)
    hidden = torch.arange(group.keys.shape[1], device=group.keys.device) > reach[:, :, None]
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill(hidden, float("-inf"))[:, None]


def _tails(rows: Tensor, group: Group) -> Tensor:
    """Rows (T, W) of a group's tails as (G, S, W)."""
    return rows[group.start : group.stop].view(-1, group.size, rows.shape[1])


def _attend(block: Block, parts: Sequence[Tensor], memory: Tensor, pack: Pack, masks: Sequence[Tensor]) -> Tensor:
    """Attention of queries (G, S, W), group by group, over keys and values (T, 2 W): (all queries, W)."""
    outputs = []
    for queries, group, mask in zip(parts, pack.groups, masks, strict=True):
        width = queries.shape[2]
        table = memory.index_select(0, group.keys.flatten()).view(*group.keys.shape, 2, block.heads, -1)
        keys, values = table.permute(2, 0, 3, 1, 4)
        heads = queries.view(*queries.shape[:2], block.heads, -1).transpose(1, 2)
        attended = scaled_dot_product_attention(heads, keys, values, attn_mask=mask)
        outputs.append(attended.transpose(1, 2).reshape(-1, width))
    return torch.cat(outputs)


def _finish(block: Block, x: Tensor, attended: Tensor) -> Tensor:
    """The residual stream (T, W) behind a block, from the one before it and the attention's output."""
    x = x + block.out(attended)
    return x + block.mlp(block.norm_2(x).to(attended.dtype))
