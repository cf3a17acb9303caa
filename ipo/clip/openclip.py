"""OpenCLIP models behind the `ClipModel` contract: loading, images, and texts by way of one of the text paths."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import open_clip
import torch
from PIL.Image import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import normalize

from ipo.clip.base import Fingerprint
from ipo.clip.digest import model_hash
from ipo.clip.sources import find_source, make_tokenizer
from ipo.clip.specs import require_model_folder
from ipo.clip.text.cache import open_text_caches
from ipo.clip.text.contexts import context_sequences
from ipo.clip.text.exactness import choose_text_path
from ipo.clip.text.plain import TextPath, precision_context, token_embedding
from ipo.clip.text.tokens import Tokens
from ipo.clip.vit import encode_patches, patch_count
from ipo.errors import ModelError

LOAD_ERRORS = (RuntimeError, OSError, ValueError, KeyError, UserWarning, SafetensorError, UnpicklingError)
"""What open_clip raises for weights that are broken, of another shape, or not to be had."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Preprocess:
    """The test-time transform of a model. Picklable, so that worker processes can have it without the model."""

    transform: Callable[[Image], Tensor]
    description: str

    def __call__(self, image: Image) -> Tensor:
        """An RGB image to pixels (3, H, W), float32."""
        return self.transform(image)


def load_openclip(
    spec: str, *, device: str | torch.device, precision: str, text_memory_mb: int, offline: bool
) -> OpenClip:
    """The model of a spec: `NAME/TAG`, `hf-hub:org/repo` or `local-dir:PATH`; never one with random weights.

    Raises `ModelError` where weights are missing, out of reach, broken or mismatched.
    """
    if spec.startswith("local-dir:"):
        require_model_folder(Path(spec.removeprefix("local-dir:")))
    source = find_source(spec, offline=offline)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="QuickGELU mismatch")
        try:
            module, transform = open_clip.create_model_from_pretrained(
                source.name, source.weights, precision="fp32", device=device, **source.options
            )
            tokenizer = make_tokenizer(source)
        except LOAD_ERRORS as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"cannot load CLIP model '{spec}': {reason[:500]}") from error
    preprocess = Preprocess(transform, repr(module.visual.preprocess_cfg))
    return OpenClip.from_module(module, tokenizer, preprocess, spec, precision=precision, text_memory_mb=text_memory_mb)


class OpenClip:
    """A frozen open_clip model in float32 weights, its `module`; `precision` is that of the computation."""

    def __init__(
        self, module: Any, tokens: Tokens, text: TextPath, preprocess: Preprocess, name: str, precision: str
    ) -> None:
        self.preprocess = preprocess
        self.module, self._tokens, self._text = module, tokens, text
        self._name, self._precision = name, precision
        self._embedding = token_embedding(module)
        self.logit_scale = float(module.logit_scale.detach().exp())
        self.width = int(self._embedding.weight.shape[1])
        self.context_length = tokens.context_length
        self.dim = int(self._encode_new(["a"]).shape[1])
        self._caches = open_text_caches(self, None)

    @classmethod
    def from_module(
        cls,
        module: Any,
        tokenizer: Any,
        preprocess: Preprocess,
        name: str,
        *,
        precision: str = "float32",
        text_memory_mb: int = 512,
    ) -> OpenClip:
        """The model around an open_clip module, whatever its weights."""
        module = module.eval().requires_grad_(False)
        tokens = Tokens(tokenizer, _context_length(module, tokenizer))
        text = choose_text_path(module, tokens, DTYPES[precision], text_memory_mb)
        return cls(module, tokens, text, preprocess, name, precision)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """Identity of the model; hashing the weights takes about a second."""
        return Fingerprint(self._name, model_hash(self.module), self.preprocess.description, self._precision)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._embedding.weight.device

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) to unit-length features (B, D), float32."""
        with precision_context(self.device, DTYPES[self._precision]):
            features = self.module.encode_image(pixels.to(self.device, non_blocking=True))
        return normalize(features.float(), dim=-1)

    @property
    def patch_count(self) -> int:
        """P, patches of an image; 0 where the image tower is no plain vision transformer."""
        return patch_count(self.module.visual)

    @torch.no_grad()
    def encode_patches(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) to raw features (B, 1 + P, D) of whole images and of their patches, float32."""
        with precision_context(self.device, DTYPES[self._precision]):
            return encode_patches(self.module.visual, pixels.to(self.device, non_blocking=True)).float()

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], unit: bool = True) -> Tensor:
        """Texts to features (N, D), float32, of unit length or raw; a text is encoded once of each and then remembered.

        Raises `PromptError` for a text longer than the context.
        """
        if not texts:
            return torch.empty(0, self.dim, device=self.device)
        return self._caches[unit].fetch(texts, partial(self._encode_new, unit=unit))

    def _encode_new(self, texts: Sequence[str], unit: bool = True) -> Tensor:
        return self._text.encode([self._tokens.sequence(text) for text in texts], unit=unit).float()

    def use_text_cache(self, path: Path | None) -> None:
        """Forget the texts in memory and, given a path, use the file; `RunError` where that cannot be made or read."""
        self._caches = open_text_caches(self, path)

    def token_count(self, text: str) -> int:
        """Tokens of `text`, start and end tokens included, never truncated."""
        return len(self._tokens.start) + len(self._tokens.words(text)) + len(self._tokens.end)

    def embed_words(self, text: str) -> Tensor:
        """Token embeddings (M, W) of `text` without start and end tokens and without positions."""
        ids = torch.tensor(self._tokens.words(text), dtype=torch.long, device=self.device)
        return self._embedding.weight[ids].clone()

    def vocabulary(self) -> tuple[list[str], Tensor]:
        """Readable form of each token, and all token embeddings (V, W)."""
        weight = self._embedding.weight.detach()
        return self._tokens.readable(len(weight)), weight

    def encode_embeddings(
        self,
        classnames: Sequence[str],
        before: Tensor,
        after: Tensor | None = None,
        tail: str = ".",
        unit: bool = True,
    ) -> Tensor:
        """Features (B, C, D) of class names with context vectors (B, 1|C, M, W) around them, with gradient to those."""
        after = before[:, :, :0] if after is None else after
        sequences = context_sequences(self._tokens, classnames, before, after, tail)
        vectors = torch.cat([before.flatten(0, 2), after.flatten(0, 2)])
        features = self._text.encode(sequences, vectors.to(self.device) if len(vectors) else None, unit)
        return features.view(-1, len(classnames), features.shape[-1])

    @torch.no_grad()
    def encode_tokens(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Features (N, D) of raw token ids, start and end tokens added."""
        sequences = [[*self._tokens.start, *row, *self._tokens.end] for row in ids]
        for row in sequences:
            self._tokens.check(len(row), f"{len(row)} token ids")
        return self._text.encode(sequences)

    def image_tower(self) -> nn.Module:
        """A trainable copy of the image side: pixels (B, 3, H, W) to unit-length features (B, D), with gradient."""
        return ImageTower(copy.deepcopy(self.module.visual))


class ImageTower(nn.Module):
    """The image side of a model, to be trained."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual.requires_grad_(True)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) to unit-length features (B, D)."""
        output = self.visual(pixels)
        features = output[0] if isinstance(output, tuple) else output
        return normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def _context_length(module: Any, tokenizer: Any) -> int:
    """Positions that the tower has and the tokenizer fills; Hugging Face towers have more than they were tuned on."""
    lengths = getattr(getattr(module, "text", module), "context_length", None), tokenizer.context_length
    return min(int(length) for length in lengths if length)
