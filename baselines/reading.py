"""What learned context vectors would say: the vocabulary words nearest to each (CoOp, arXiv 2109.01134, section 4.5).

Nearest words are all the reading there is, and they are often not what the vector does: the distances say how far off.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from ipo.clip.base import ClipModel
from ipo.prompt import CLASS_PLACEHOLDER

SPECIAL = re.compile(r"\[.+\]|<.+>")
"""Tokens that tokenizers use for themselves."""


def nearest_words(clip: ClipModel, context: Tensor, count: int = 5) -> list[list[tuple[str, float]]]:
    """For each context vector (M, W) its `count` nearest vocabulary words with Euclidean distances, nearest first.

    Tokens that are no words, such as `[MASK]`, are passed over.
    """
    words, embeddings = clip.vocabulary()
    special = torch.tensor([bool(SPECIAL.fullmatch(word)) for word in words], device=embeddings.device)
    distances = torch.cdist(context.detach().to(embeddings), embeddings).masked_fill(special, torch.inf)  # (M, V)
    values, indices = distances.topk(min(count, int((~special).sum())), largest=False)
    return [
        [(words[index], distance) for index, distance in zip(row, near, strict=True)]
        for row, near in zip(indices.tolist(), values.tolist(), strict=True)
    ]


def read_context(clip: ClipModel, context: Tensor) -> dict[str, Any]:
    """The nearest words of a context (M, W), and the sentence that the nearest ones make, for `result.json`."""
    rows = nearest_words(clip, context)
    sentence = " ".join(row[0][0] for row in rows)
    return {
        "sentence": f"{sentence} {CLASS_PLACEHOLDER}.",
        "nearest_words": [[[word, round(distance, 4)] for word, distance in row] for row in rows],
    }
