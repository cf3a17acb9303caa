"""Entropic optimal transport between the patches of images and the prompts of classes (Sinkhorn's algorithm).

Shape legend: B images, C classes, D feature width, K prompts, P patches.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def transport_plans(cost: Tensor, epsilon: float, iterations: int, tolerance: float) -> Tensor:
    """Plans (..., P, K) that carry equal shares of patches to equal shares of prompts at little `cost` (..., P, K).

    Rows sum to 1/P, columns to 1/K. A problem ends after `iterations`, or where its row factors change by less than
    `tolerance` on average: each by itself, so that a plan does not depend on what is solved beside it. No gradient.
    """
    patches, prompts = cost.shape[-2:]
    kernel = torch.exp(-cost / epsilon)
    rows, columns = torch.ones_like(cost[..., 0]), torch.ones_like(cost[..., 0, :])
    active = torch.ones_like(cost[..., 0, 0], dtype=torch.bool)
    for _ in range(iterations):
        new_rows = 1 / patches / _product(kernel, columns)
        new_columns = 1 / prompts / _product(kernel.mT, new_rows)
        change = (new_rows - rows).abs().mean(dim=-1)
        rows = torch.where(active[..., None], new_rows, rows)
        columns = torch.where(active[..., None], new_columns, columns)
        active = active & ~(change < tolerance)
        if not bool(active.any()):
            break
    return rows[..., None] * kernel * columns[..., None, :]


def _product(matrices: Tensor, vectors: Tensor) -> Tensor:
    return (matrices @ vectors[..., None]).squeeze(-1)


def transported(cosines: Tensor, plans: Tensor) -> Tensor:
    """Similarities (...) of patches and prompts: their cosines (..., P, K), weighted by the plans."""
    return (plans * cosines).sum(dim=(-2, -1))
