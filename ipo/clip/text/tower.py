"""The weights of a causal open_clip text tower, read out of the module, or None for a tower of another shape.

Shape legend: D feature width, L tokens, V vocabulary, W tower width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, TextTransformer
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, silu

QUICK_GELU_SLOPE = 1.702


@dataclass(frozen=True)
class Norm:
    """A layer norm in the precision of the residual stream."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """Rows (..., W), normalised."""
        return layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class Linear:
    """A linear layer in the precision of the computation; `gamma` is the LayerScale behind it, if any."""

    weight: Tensor
    bias: Tensor | None
    gamma: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Rows (..., W in) to (..., W out)."""
        y = linear(x, self.weight, self.bias)
        return y if self.gamma is None else y * self.gamma

    def rows(self, start: int, stop: int) -> Linear:
        """The layer that computes only the outputs from `start` to `stop`, on the same memory."""
        return Linear(self.weight[start:stop], None if self.bias is None else self.bias[start:stop])


@dataclass(frozen=True)
class Block:
    """One residual attention block. `qkv` computes queries, keys and values side by side."""

    heads: int
    norm_1: Norm
    qkv: Linear
    out: Linear
    norm_2: Norm
    up: Linear
    activation: Callable[[Tensor], Tensor]
    down: Linear

    def mlp(self, x: Tensor) -> Tensor:
        """The two linear layers with their activation, rows (T, W)."""
        return self.down(self.activation(self.up(x)))


@dataclass(frozen=True)
class TextTower:
    """A causal tower whose feature is the last block's output at the pooled token, normed and projected."""

    embedding: Tensor
    positions: Tensor
    blocks: Sequence[Block]
    norm: Norm
    projection: Linear | None
    end_id: int | None
    """The id that is pooled at, or None where it is the largest of a sequence."""
    dtype: torch.dtype
    """Precision of the linear layers; norms, the residual stream and features keep that of the weights."""

    def pooled(self, ids: Sequence[int]) -> int:
        """Index of the token where the feature is read; what comes behind it has no influence."""
        return ids.index(max(ids) if self.end_id is None else self.end_id)


def read_tower(model: Any, dtype: torch.dtype) -> TextTower | None:
    """The text tower of `model` with linear layers in `dtype`; None where it is not causal, not pooled at its end
    token, or made of other blocks than `ResidualAttentionBlock`.
    """
    if type(model) is CLIP:
        tower: Any = model
        pool, end_id = model.text_pool_type, model.text_eos_id
    elif type(model) is CustomTextCLIP and type(model.text) is TextTransformer:
        tower = model.text
        pool, end_id = tower.pool_type, tower.eos_id
    else:
        return None
    appended = getattr(tower, "cls_emb", None) is not None or getattr(tower, "output_tokens", False)
    blocks = list(tower.transformer.resblocks)
    if pool not in ("argmax", "eos") or appended or not _is_causal(tower.attn_mask) or not all(map(_is_known, blocks)):
        return None
    return TextTower(
        embedding=tower.token_embedding.weight,
        positions=tower.positional_embedding,
        blocks=[_read_block(block, dtype) for block in blocks],
        norm=_read_norm(tower.ln_final),
        projection=_read_projection(tower.text_projection),
        end_id=end_id if pool == "eos" else None,
        dtype=dtype,
    )


def _is_causal(mask: Tensor | None) -> bool:
    return mask is not None and torch.equal(mask, torch.full_like(mask, float("-inf")).triu(1))


def _is_known(block: Any) -> bool:
    attention = getattr(block, "attn", None)
    return (
        type(block) is ResidualAttentionBlock
        and not hasattr(block, "ln_1_kv")
        and isinstance(attention, nn.MultiheadAttention)
        and attention.in_proj_weight is not None
        and attention.bias_k is None
    )


def _read_block(block: Any, dtype: torch.dtype) -> Block:
    attention, up, down = block.attn, block.mlp.c_fc, block.mlp.c_proj
    activation: Callable[[Tensor], Tensor] = block.mlp.gelu
    slope = 1.0
    if isinstance(block.mlp.gelu, QuickGELU):
        # x sigmoid(s x) = silu(s x) / s, and the two factors go into the weights: one pass over memory, not three.
        activation, slope = silu, QUICK_GELU_SLOPE
    return Block(
        heads=attention.num_heads,
        norm_1=_read_norm(block.ln_1),
        qkv=_read_linear(attention.in_proj_weight, attention.in_proj_bias, dtype),
        out=_read_linear(attention.out_proj.weight, attention.out_proj.bias, dtype, block.ls_1),
        norm_2=_read_norm(block.ln_2),
        up=_read_linear(_scaled(up.weight, slope), _scaled(up.bias, slope), dtype),
        activation=activation,
        down=_read_linear(_scaled(down.weight, 1 / slope), down.bias, dtype, block.ls_2),
    )


def _scaled(tensor: Tensor, factor: float) -> Tensor:
    return tensor if factor == 1 else tensor.detach() * factor


def _read_norm(norm: nn.LayerNorm) -> Norm:
    return Norm(norm.weight, norm.bias, norm.eps)


def _read_linear(weight: Tensor, bias: Tensor | None, dtype: torch.dtype, scale: nn.Module | None = None) -> Linear:
    gamma = getattr(scale, "gamma", None)
    cast = [None if tensor is None else tensor.to(dtype) for tensor in (bias, gamma)]
    return Linear(weight.to(dtype), *cast)


def _read_projection(projection: nn.Linear | Tensor | None) -> Linear | None:
    if isinstance(projection, nn.Linear):
        return Linear(projection.weight, projection.bias)
    return None if projection is None else Linear(projection.T, None)
