"""A whole CLIP with random weights in double precision: one causal attention layer for texts, two layers for images."""

from __future__ import annotations

import copy
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from ipo.clip.base import ClipModel, Fingerprint
from ipo.clip.lengths import TextRoom
from ipo.clip.patches import PatchFeatures
from ipo.data.types import Item
from ipo.scoring import ImageSet
from ipo.store.files import write_atomic
from ipo.task import FewShotTask
from tests.clip.tiny_openclip import DIM, TEXT, VISION, tiny_module

WORDS = ["[start]", "[end]", ".", "a", "photo", "of", "the", "red", "green", "blue", "thing", "grey", "stone"]
CLASSNAMES = ("red thing", "green", "blue stone")
NEW_NAMES = ("grey", "stone")
COLOURS = {"red thing": (200, 40, 40), "green": (40, 200, 40), "blue stone": (40, 40, 200)}


class TinyTower(nn.Module):
    """Pixels (B, 3, 4, 4) to unit features (B, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(48, 16), nn.Tanh(), nn.Linear(16, dim))

    def forward(self, pixels: Tensor) -> Tensor:
        return normalize(self.layers(pixels.to(next(self.parameters()).dtype)), dim=-1)


class TinyClip:
    """Keeps the contract of `ClipModel`, in double precision so that oracles can be exact."""

    def __init__(self, dim: int = 64, width: int = 12) -> None:
        self.dim, self.width, self.context_length, self.logit_scale = dim, width, 32, 20.0
        self.device = torch.device("cpu")
        self.fingerprint = Fingerprint("tiny", "0", "resize 4")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            self.embedding = torch.randn(len(WORDS), width, dtype=torch.double)
            self.positions = 0.3 * torch.randn(32, width, dtype=torch.double)
            self.mixers = 0.4 * torch.randn(3, width, width, dtype=torch.double)
            self.projection = torch.randn(width, dim, dtype=torch.double)
            self.tower = TinyTower(dim).double().requires_grad_(False)
        self.text_batches: list[int] = []

    def tokens(self, text: str) -> list[int]:
        known = (word if word in WORDS else WORDS[2 + len(word) % 5] for word in re.findall(r"\w+|\.", text))
        return [WORDS.index(word) for word in known]

    def token_count(self, text: str) -> int:
        return len(self.tokens(text)) + 2

    def embed_words(self, text: str) -> Tensor:
        return self.embedding[self.tokens(text)]

    def vocabulary(self) -> tuple[list[str], Tensor]:
        return WORDS, self.embedding

    def encode_tokens(self, ids: Sequence[Sequence[int]]) -> Tensor:
        rows = [self.embedding[[0, *(index % len(WORDS) for index in row), 1]] for row in ids]
        return torch.cat([self._encode(row[None]) for row in rows])

    def encode_texts(self, texts: Sequence[str], unit: bool = True) -> Tensor:
        rows = [self.embedding[[0, *self.tokens(text), 1]] for text in texts]
        return torch.cat([self._encode(row[None], unit) for row in rows])

    def encode_embeddings(
        self,
        classnames: Sequence[str],
        before: Tensor,
        after: Tensor | None = None,
        tail: str = ".",
        unit: bool = True,
    ) -> Tensor:
        count = len(before)
        self.text_batches.append(count * len(classnames))
        features = []
        for index, name in enumerate(classnames):
            pieces = [self.embedding[[0]], before, self.embed_words(name), after, self.embed_words(tail)]
            rows = [
                piece[:, min(index, piece.shape[1] - 1)] if piece.dim() == 4 else piece
                for piece in pieces
                if piece is not None
            ]
            rows = [row if row.dim() == 3 else row.expand(count, -1, -1) for row in [*rows, self.embedding[[1]]]]
            features.append(self._encode(torch.cat(rows, dim=1), unit))
        return torch.stack(features, dim=1)

    def _encode(self, rows: Tensor, unit: bool = True) -> Tensor:
        """Embeddings (B, L, W) to features (B, D), read at the last position."""
        rows = rows + self.positions[: rows.shape[1]]
        query, key, value = (rows @ mixer for mixer in self.mixers)
        weights = (query @ key.transpose(1, 2)).tril() / self.width
        features = (rows + weights @ value)[:, -1].tanh() @ self.projection
        return normalize(features, dim=-1) if unit else features

    def preprocess(self, image: Image.Image) -> Tensor:
        pixels = np.asarray(image.resize((4, 4)), dtype=np.float32) / 255
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def encode_images(self, pixels: Tensor) -> Tensor:
        with torch.no_grad():
            features: Tensor = self.tower(pixels)
            return features

    def use_text_cache(self, path: Path | None) -> None:
        """Nothing is kept."""

    @property
    def patch_count(self) -> int:
        return 0

    def encode_patches(self, pixels: Tensor) -> Tensor:
        raise AssertionError("a model without patches is not asked for them")

    def image_tower(self) -> nn.Module:
        return copy.deepcopy(self.tower).requires_grad_(True)


def tiny_task(folder: Path, clip: ClipModel | None = None, shots: int = 4, seed: int = 1) -> FewShotTask:
    """Noisy one-coloured pictures of three classes."""
    model = TinyClip() if clip is None else clip
    train = picture_set(folder, model, shots, seed)
    val, room = picture_set(folder, model, 1, 99), TextRoom.of(model, CLASSNAMES, NEW_NAMES)
    prompt = "a photo of a <CLASS>."
    return FewShotTask("tiny", CLASSNAMES, shots, seed, model, prompt, room, train, val, patches=TinyPatches(model))


def picture_set(folder: Path, clip: ClipModel, each: int, seed: int) -> ImageSet:
    random = np.random.default_rng(seed)
    items = []
    for label, name in enumerate(CLASSNAMES):
        for index in range(each):
            path = folder / f"{seed}-{label}-{index}.png"
            pixels = np.clip(random.normal(COLOURS[name], 60, (8, 8, 3)), 0, 255).astype(np.uint8)
            whole = io.BytesIO()
            Image.fromarray(pixels).save(whole, "PNG")
            write_atomic(path, whole.getvalue())  # another process may read it meanwhile
            items.append(Item(path, label))
    shown = torch.stack([clip.preprocess(Image.open(item.path)) for item in items])
    return ImageSet(tuple(items), clip.encode_images(shown))


def save_openclip(folder: Path) -> str:
    """A tiny open_clip model with random weights as a folder; returns its spec."""
    module = tiny_module()
    settings = {"model_cfg": {"embed_dim": DIM, "vision_cfg": VISION, "text_cfg": TEXT}, "preprocess_cfg": {}}
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    weights = {name: value.contiguous() for name, value in module.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


class TinyPatches:
    """Where patch features of tiny pictures come from: raw ones of the whole and its quarters, as doubles."""

    def __init__(self, clip: ClipModel, quarters: bool = True) -> None:
        self.clip, self.quarters = clip, quarters

    def load(self, items: Sequence[Item]) -> PatchFeatures:
        return PatchFeatures([self.tokens(item) for item in items], self.clip.device)

    def tokens(self, item: Item) -> Tensor:
        image = Image.open(item.path)
        boxes = [(x, y, x + 4, y + 4) for x in (0, 4) for y in (0, 4)] if self.quarters else [(0, 0, 8, 8)]
        pixels = torch.stack([self.clip.preprocess(part) for part in (image, *(image.crop(box) for box in boxes))])
        return self.clip.encode_images(pixels) * torch.linspace(1, 3, len(pixels), dtype=torch.double)[:, None]
