"""Small stand-ins that keep the contracts: a CLIP whose features hash words, and an LLM that reads a script."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import normalize

from ipo.clip.base import ClipModel, Fingerprint
from ipo.config import StrategySettings
from ipo.data.types import Item
from ipo.llm.base import LLM, Message, Reply, ReplyForm
from ipo.scoring import ImageSet
from ipo.search.strategy import Chosen, choose

VOCABULARY = ["a", "photo", "of", "the", "."]


def word_vector(word: str, dim: int) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
    return torch.randn(dim, generator=torch.Generator().manual_seed(seed))


def thumbnail(image: Image.Image) -> Tensor:
    """Pixels (3, 8, 8); a function of the module, so that worker processes can find it."""
    return torch.tensor(list(image.resize((8, 8)).tobytes()), dtype=torch.float32).view(8, 8, 3).permute(2, 0, 1) / 255


class ThumbnailTower(nn.Module):
    """A fixed projection of thumbnails (B, 3, 8, 8) to features (B, D) of unit length."""

    def __init__(self, dim: int, seed: int = 0) -> None:
        super().__init__()
        projection = torch.randn(3 * 8 * 8, dim, generator=torch.Generator().manual_seed(seed))
        self.projection = nn.Parameter(projection, requires_grad=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return normalize(pixels.flatten(1) @ self.projection, dim=-1)


class FakeClip:
    """Text features are the normalised sum of word vectors, image features a fixed projection of thumbnails."""

    preprocess = staticmethod(thumbnail)
    patch_count = 0

    def __init__(self, dim: int = 16) -> None:
        self.dim = dim
        self.width = dim
        self.context_length = 77
        self.logit_scale = 20.0
        self.device = torch.device("cpu")
        self.fingerprint = Fingerprint("fake", "0", "thumbnail")
        self.tower = ThumbnailTower(dim)
        self.encoded: list[str] = []

    def encode_texts(self, texts: Sequence[str], unit: bool = True) -> Tensor:
        self.encoded += texts
        sums = [
            sum((word_vector(word, self.dim) for word in text.lower().split()), torch.zeros(self.dim)) for text in texts
        ]
        return normalize(torch.stack(sums), dim=-1) if unit else torch.stack(sums)

    def token_count(self, text: str) -> int:
        return len(text.split()) + 2

    def use_text_cache(self, path: Path | None) -> None:
        """Nothing is kept."""

    def embed_words(self, text: str) -> Tensor:
        return torch.stack([word_vector(word, self.dim) for word in text.lower().split()])

    def vocabulary(self) -> tuple[list[str], Tensor]:
        return VOCABULARY, self.embed_words(" ".join(VOCABULARY))

    def encode_tokens(self, ids: Sequence[Sequence[int]]) -> Tensor:
        return self.encode_texts([" ".join(VOCABULARY[token] for token in row) for row in ids])

    def encode_embeddings(
        self,
        classnames: Sequence[str],
        before: Tensor,
        after: Tensor | None = None,
        tail: str = ".",
        unit: bool = True,
    ) -> Tensor:
        own = torch.stack([self.embed_words(f"{name} {tail}").sum(0) for name in classnames])
        contexts = before.sum(2) if after is None else before.sum(2) + after.sum(2)
        return normalize(contexts + own, dim=-1) if unit else contexts + own

    def encode_images(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.tower(pixels)
        return features

    def encode_patches(self, pixels: Tensor) -> Tensor:
        raise AssertionError("a model without patches is not asked for them")

    def image_tower(self) -> nn.Module:
        return ThumbnailTower(self.dim).requires_grad_(True)


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
        unnamed: Sequence[str] = (),
    ) -> list[Reply]:
        assert len(self.asked) < len(self.steps), "the script has run out"
        texts = self.steps[len(self.asked)]
        assert len(texts) == n, f"asked for {n}, the script has {len(texts)}"
        self.asked.append((list(messages), seed))
        return [Reply(text, self.form, "stop", prompt_tokens=10, completion_tokens=5, seconds=0.1) for text in texts]

    def token_count(self, text: str) -> int:
        return len(text.split())


CONTRACTS: tuple[type[ClipModel], type[LLM]] = (FakeClip, ScriptedLLM)
"""Each stand-in keeps the whole contract of what it stands for: the types prove it here."""


def chosen(name: str, **options: object) -> Chosen:
    """A strategy with options of its own."""
    return choose(StrategySettings.model_validate({"name": name, **options}))


def image_set(clip: FakeClip, classnames: Sequence[str], each: int = 4, noise: float = 0.6, seed: int = 0) -> ImageSet:
    """Images whose features are their class name's word vector with noise."""
    generator = torch.Generator().manual_seed(seed)
    items, rows = [], []
    for label, name in enumerate(classnames):
        for index in range(each):
            items.append(Item(Path(f"{name}/{index}.png"), label))
            rows.append(word_vector(name, clip.dim) + noise * 4 * torch.randn(clip.dim, generator=generator))
    return ImageSet(tuple(items), normalize(torch.stack(rows), dim=-1))
