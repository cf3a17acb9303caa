"""Losses between texts: learned ones are to be told apart by hand-written ones of the same classes, or the reverse.

Shape legend: D feature width, G groups, H hand-written texts, L hand-written prompts, V class names.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

Direction = Literal["hand", "learned", "both"]
"""What is classified: each hand-written text among the learned ones, the reverse, or both."""


def hand_loss(learned: Tensor, hand: Tensor, owners: Tensor, scale: float) -> Tensor:
    """Mean cross-entropy of hand-written texts (H, D) of the classes `owners` (H,) among learned ones (V, D)."""
    return cross_entropy(scale * hand @ learned.T, owners)


def learned_loss(learned: Tensor, hand: Tensor, scale: float) -> Tensor:
    """Mean cross-entropy of learned texts (V, D) among those of each hand-written prompt (L, V, D)."""
    scores = scale * torch.einsum("vd,lwd->lvw", learned, hand)
    labels = torch.arange(len(learned), device=learned.device).repeat(len(hand))
    return cross_entropy(scores.flatten(0, 1), labels)


def text_loss(learned: Tensor, hand: Tensor, scale: float, direction: Direction = "hand") -> Tensor:
    """Loss between the learned texts (V, D) and the hand-written ones (L, V, D) of the same classes."""
    owners = torch.arange(len(learned), device=learned.device).repeat(len(hand))
    losses = []
    if direction != "learned":
        losses.append(hand_loss(learned, hand.flatten(0, 1), owners, scale))
    if direction != "hand":
        losses.append(learned_loss(learned, hand, scale))
    return torch.stack(losses).mean()


def grouped_loss(learned: Tensor, hand: Tensor, scale: float, direction: Direction) -> Tensor:
    """Mean over all hand-written prompts (L, V, D), dealt in turn to the groups of learned texts (G, V, D)."""
    parts = [hand[group :: len(learned)] for group in range(len(learned))]
    losses = [text_loss(own, part, scale, direction) * len(part) for own, part in zip(learned, parts, strict=True)]
    return torch.stack(losses).sum() / len(hand)
