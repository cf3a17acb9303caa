"""The normal distribution of what is added to all context vectors: one for every image, or one that it depends on.

Shape legend: B images, D feature width, W token embedding width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ipo.clip.base import ClipModel


class Residual(nn.Module):
    """The same normal distribution of the residual for every image: its mean (W,) and log-variance (W,)."""

    def __init__(self, clip: ClipModel, log_variance: float | None = None) -> None:
        super().__init__()
        start = torch.rand(clip.width) if log_variance is None else torch.full((clip.width,), log_variance)
        self.mean, self.log_variance = nn.Parameter(torch.zeros(clip.width)), nn.Parameter(start)

    def forward(self, _features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (1, W) and log-variance (1, W), whatever the image features (B, D)."""
        return self.mean[None], self.log_variance[None]


class ConditionalResidual(nn.Module):
    """A normal distribution of the residual for each image, by two nets of three layers with D/2 hidden units."""

    def __init__(self, clip: ClipModel, log_variance: float | None = None, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or max(1, clip.dim // 2)
        self.start = log_variance or 0.0
        self.mean_net, self.log_variance_net = (
            nn.Sequential(
                nn.Linear(clip.dim, hidden),
                nn.ELU(),
                nn.Linear(hidden, hidden),
                nn.ELU(),
                nn.Linear(hidden, clip.width),
            )
            for _ in range(2)
        )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (B, W) and log-variance (B, W) for image features (B, D)."""
        return self.mean_net(features), self.start + self.log_variance_net(features)


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence from N(mean, exp(log_variance)) to N(0, 1), for each dimension."""
    return 0.5 * (log_variance.exp() + mean**2 - 1 - log_variance)
