"""ConSE (arXiv 1312.5650): an ImageNet classifier read as an image encoder, by the texts of its likeliest labels.

Patches are read in the same way from the last map of the classifier, in whose places the classifier's last layer says
what it sees there (class activation maps, arXiv 1512.04150); the mean of those logits is the logit of the whole image.
Shape legend: A features pooled, B images, D feature width, K labels, P places of the map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ipo.clip.adapter import Adapter, see, see_places

TOP_LABELS = 10
TEMPERATURE = 2.0


class ConseTower(nn.Module):
    """An image classifier read as an image encoder: pixels (B, 3, H, W) to unit-length features (B, D)."""

    def __init__(self, classifier: nn.Module, label_features: Tensor, adapter: Adapter | None = None) -> None:
        super().__init__()
        self.classifier, self.adapter = classifier, adapter
        self.register_buffer("label_features", label_features)

    def forward(self, pixels: Tensor) -> Tensor:
        """ConSE's feature, and what the adapter makes of it, differentiable in the weights."""
        if self.adapter is None:
            return self.conse(self.classifier(pixels).float())
        logits, pooled, style = (found.float() for found in see(self.classifier, pixels))
        return self.adapter.image(pooled, style, self.conse(logits))

    def with_patches(self, pixels: Tensor) -> Tensor:
        """Features (B, 1 + P, D) of unit length of whole images and of the places of the last map."""
        logits, places, style = (found.float() for found in see_places(self.classifier, pixels))
        count = places.shape[1]
        conse = self.conse(logits.flatten(0, 1))
        if self.adapter is not None:
            # How an image looks is a matter of the whole of it: its places share its style.
            conse = self.adapter.image(places.flatten(0, 1), style.repeat_interleave(count, dim=0), conse)
        return conse.view(len(pixels), count, -1)

    def conse(self, logits: Tensor) -> Tensor:
        """Probability-weighted mean of the features of the most probable labels of logits (B, K)."""
        top = (logits / TEMPERATURE).softmax(dim=-1).topk(min(TOP_LABELS, logits.shape[-1]), dim=-1)
        features = self.get_buffer("label_features")[top.indices]
        return normalize(torch.einsum("bk,bkd->bd", top.values, features), dim=-1)
