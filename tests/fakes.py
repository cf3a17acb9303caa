"""Small stand-ins that keep the contracts: a CLIP whose features hash words, and an LLM that reads a script."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ipo.clip.base import Fingerprint
from ipo.data.types import Item
from ipo.llm.base import Message, Reply, ReplyForm
from ipo.scoring import ImageSet


def word_vector(word: str, dim: int) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
    return torch.randn(dim, generator=torch.Generator().manual_seed(seed))


class FakeClip:
    """Text features are the normalised sum of word vectors; nothing else of the contract is there."""

    def __init__(self, dim: int = 16) -> None:
        self.dim = dim
        self.width = dim
        self.context_length = 77
        self.logit_scale = 20.0
        self.device = torch.device("cpu")
        self.fingerprint = Fingerprint("fake", "0", "none")
        self.encoded: list[str] = []

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        self.encoded += texts
        sums = [
            sum((word_vector(word, self.dim) for word in text.lower().split()), torch.zeros(self.dim)) for text in texts
        ]
        return normalize(torch.stack(sums), dim=-1)

    def token_count(self, text: str) -> int:
        return len(text.split()) + 2


class ScriptedLLM:
    """Answers from a list of steps, each a list of texts, and fails loudly when the script runs out."""

    name = "scripted"
    template = "ipo.j2"
    caption_tokens = 300

    def __init__(self, steps: Sequence[Sequence[str]], form: ReplyForm = "line") -> None:
        self.steps = [list(step) for step in steps]
        self.form: ReplyForm = form
        self.asked: list[tuple[list[Message], int]] = []

    def generate(
        self,
        messages: Sequence[Message],
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        known: AbstractSet[str] = frozenset(),
    ) -> list[Reply]:
        assert len(self.asked) < len(self.steps), "the script has run out"
        texts = self.steps[len(self.asked)]
        assert len(texts) == n, f"asked for {n}, the script has {len(texts)}"
        self.asked.append((list(messages), seed))
        return [Reply(text, self.form, "stop", prompt_tokens=10, completion_tokens=5, seconds=0.1) for text in texts]

    def token_count(self, text: str) -> int:
        return len(text.split())


def image_set(clip: FakeClip, classnames: Sequence[str], each: int = 4, noise: float = 0.6, seed: int = 0) -> ImageSet:
    """Images whose features are their class name's word vector with noise."""
    generator = torch.Generator().manual_seed(seed)
    items, rows = [], []
    for label, name in enumerate(classnames):
        for index in range(each):
            items.append(Item(Path(f"{name}/{index}.png"), label))
            rows.append(word_vector(name, clip.dim) + noise * 4 * torch.randn(clip.dim, generator=generator))
    return ImageSet(tuple(items), normalize(torch.stack(rows), dim=-1))
