"""Patch features of open_clip's vision transformers: the last block's tokens, normed and projected like the global one.

The projection was trained for the global feature alone; that patches have a meaning there is what methods make use of.
Shape legend: B images, D feature width, P patches of an image.
"""

from __future__ import annotations

from typing import Any

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor


def patch_count(visual: Any) -> int:
    """P of an image tower; 0 for one of another kind: not a ViT, pooled by attention, or without a projection."""
    plain = type(visual) is VisionTransformer and visual.attn_pool is None and visual.pool_type in ("tok", "avg")
    return int(visual.grid_size[0] * visual.grid_size[1]) if plain and visual.proj is not None else 0


def encode_patches(visual: Any, pixels: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) to raw features (B, 1 + P, D): the tower's own of the whole image, then those of patches."""
    seen: list[Tensor] = []
    hook = visual.transformer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        pooled = visual(pixels)
    finally:
        hook.remove()
    whole = pooled[0] if isinstance(pooled, tuple) else pooled
    return torch.cat([whole[:, None], visual.ln_post(seen[0][:, 1:]) @ visual.proj], dim=1)
