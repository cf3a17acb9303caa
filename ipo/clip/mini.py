"""`mini`, the zero-shot model made of parts that package registries deliver: for use where no hub is reachable.

Image side: an ImageNet classifier (EfficientNet-Lite0, arXiv 1905.11946); its ten most probable labels at temperature 2
average the text embeddings of their names (ConSE, arXiv 1312.5650). Text side: all-MiniLM-L6-v2, centred by the mean
embedding of all ImageNet names. That alone is `mini-conse`, which hardly reacts to wording and does not know drawings;
`mini` adds what `ipo.clip.adapter` has learnt of both. `ipo/clip/mini.md` is its card.
Shape legend as in `ipo.clip.base`; K ImageNet labels.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from pickle import UnpicklingError

import timm
import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision import transforms

from ipo.clip.adapter import Adapter, has_places, load_adapter
from ipo.clip.base import Fingerprint
from ipo.clip.conse import TEMPERATURE, TOP_LABELS, ConseTower
from ipo.clip.minilm import CONTEXT_LENGTH, MiniLM, load_minilm
from ipo.clip.specs import MINI_PACKAGES
from ipo.clip.text.cache import open_text_caches
from ipo.clip.text.plain import precision_context
from ipo.config import OFFLINE_CLIP, Precision
from ipo.errors import ModelError
from ipo.packages import OFFLINE_REMEDY

LOGIT_SCALE = 20.0
ADAPTED_LOGIT_SCALE = 17.0
"""With the adapter: the scale with the least cross-entropy on pictures of names held out of its training."""
ADAPTER_WEIGHTS = Path(__file__).with_name("mini.safetensors")
IMAGE_SIZE = 224
MAP_STRIDE = 32
"""Pixels between two places of the network's last map."""

PREPROCESSING = (
    f"rgb, whole picture to {IMAGE_SIZE}x{IMAGE_SIZE} bicubic, mean 0.5, std 0.5; "
    f"top {TOP_LABELS} labels at temperature {TEMPERATURE:g}"
)
"""All that stands between a picture and its feature beside the weights; part of the cache key."""

_CPU_BATCH = 4
"""Images that go through the network together on a CPU: more no longer fit its caches and take three times as long."""

EFFICIENTNET_PACKAGE, MINILM_PACKAGE = MINI_PACKAGES
EFFICIENTNET_WEIGHTS = "models/efficientnet-lite0-57934424.pth"


class Mini:
    """The offline stand-in as a `ClipModel`; it can also say which ImageNet labels an image resembles.

    `tower` is its image side, `text` its text side.
    """

    context_length = CONTEXT_LENGTH

    def __init__(
        self,
        classifier: nn.Module,
        text: MiniLM,
        labels: Sequence[str],
        fingerprint: Fingerprint,
        device: torch.device,
        adapter: Adapter | None = None,
    ) -> None:
        self.fingerprint, self.device, self.text, self._labels = fingerprint, device, text, tuple(labels)
        # An attribute, not a method: worker processes are then sent the transform without the model.
        self.preprocess = transforms.Compose(
            [
                transforms.Resize((IMAGE_SIZE, IMAGE_SIZE), transforms.InterpolationMode.BICUBIC),
                transforms.ToTensor(),
                transforms.Normalize((0.5,) * 3, (0.5,) * 3),
            ]
        )
        raw = text.encode_texts(self._labels)
        self._mean = raw.mean(dim=0)
        tower = ConseTower(classifier, self._centre(raw), adapter).to(device).to(memory_format=torch.channels_last)
        self.tower = tower.eval().requires_grad_(False)
        self._adapter = self.tower.adapter
        self.logit_scale = LOGIT_SCALE if adapter is None else ADAPTED_LOGIT_SCALE
        self._caches = open_text_caches(self, None)

    @property
    def dim(self) -> int:
        """D, the feature width."""
        return self.text.width + (0 if self._adapter is None else self._adapter.width)

    @property
    def width(self) -> int:
        """W, the width of token embeddings."""
        return self.text.width

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) to image features (B, D)."""
        return self._run(self.tower, pixels)

    @property
    def patch_count(self) -> int:
        """P, places of the network's last map: 49, or 0 for a network of another kind."""
        return (IMAGE_SIZE // MAP_STRIDE) ** 2 if has_places(self.tower.classifier) else 0

    def encode_patches(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) to features (B, 1 + P, D) of whole images and of the places of the network's last map."""
        return self._run(self.tower.with_patches, pixels)

    def top_labels(self, pixels: Tensor, count: int) -> list[list[tuple[str, float]]]:
        """The `count` most probable ImageNet labels of each image (B, 3, H, W), with probabilities, best first."""
        top = self._run(self.tower.classifier, pixels).softmax(dim=-1).topk(count, dim=-1)
        rows = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return [[(self._labels[i], p) for i, p in zip(indices, values, strict=True)] for indices, values in rows]

    def encode_texts(self, texts: Sequence[str], unit: bool = True) -> Tensor:
        """Texts to text features (N, D); a text is encoded once and then remembered.

        With the adapter they are made of parts of fixed length, so that raw ones are of unit length too.
        """
        if not texts:
            return torch.empty(0, self.dim, device=self.device)
        return self._caches[unit].fetch(texts, partial(self._encode, unit=unit))

    def use_text_cache(self, path: Path | None) -> None:
        """Forget the texts in memory and, given a path, use the file; `RunError` where that cannot be made or read."""
        self._caches = open_text_caches(self, path)

    def token_count(self, text: str) -> int:
        """Tokens of `text`, start and end tokens included."""
        return len(self.text.token_ids([text])[0]) + 2

    def embed_words(self, text: str) -> Tensor:
        """Token embeddings (M, W) of `text`."""
        return self.text.word_embeddings(self.text.token_ids([text])[0])

    def vocabulary(self) -> tuple[list[str], Tensor]:
        """Readable form of each token, and all token embeddings (V, W)."""
        return self.text.vocabulary()

    def encode_embeddings(
        self,
        classnames: Sequence[str],
        before: Tensor,
        after: Tensor | None = None,
        tail: str = ".",
        unit: bool = True,
    ) -> Tensor:
        """Text features (B, C, D) around learned contexts, with gradient to them; see `ClipModel`."""
        return self._features(self.text.encode_embeddings(classnames, before, after, tail), unit)

    def encode_tokens(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Text features (N, D) of raw token ids, start and end tokens added."""
        return self._features(self.text.encode_tokens(ids))

    def image_tower(self) -> nn.Module:
        """A trainable copy of the image side; its batch norms are folded into the convolutions and so stay frozen."""
        tower: nn.Module = copy.deepcopy(self.tower)
        return tower.requires_grad_(True)

    @torch.no_grad()
    def _encode(self, texts: Sequence[str], unit: bool) -> Tensor:
        return self._features(self.text.encode_texts(texts), unit)

    def _features(self, sentences: Tensor, unit: bool = True) -> Tensor:
        """Text features (..., D) of sentence embeddings (..., W)."""
        if self._adapter is None:
            return self._centre(sentences) if unit else sentences - self._mean
        return self._adapter.text(self._centre(sentences))

    def _centre(self, features: Tensor) -> Tensor:
        """Text features (..., D) relative to the mean ImageNet name, unit length."""
        return normalize(features - self._mean, dim=-1)

    @torch.no_grad()
    def _run(self, network: Callable[[Tensor], Tensor], pixels: Tensor) -> Tensor:
        """A network on pixels (B, 3, H, W), in pieces that suit the device; float32."""
        pixels = pixels.to(self.device).contiguous(memory_format=torch.channels_last)
        size = _CPU_BATCH if self.device.type == "cpu" else max(1, len(pixels))
        # Only pieces of one shape give an image the same bits whatever stands beside it, so the last one is filled up.
        filled = torch.cat([pixels, pixels[-1:].expand(-len(pixels) % size, -1, -1, -1)])
        with precision_context(self.device, getattr(torch, self.fingerprint.precision)):
            return torch.cat([network(piece).float() for piece in torch.split(filled, size)])[: len(pixels)]


@cache
def load_mini(*, device: torch.device, precision: Precision, text_memory_mb: int, name: str) -> Mini:
    """`mini` or `mini-conse`, loaded once in a process. Raises `ModelError` where one of its packages is missing."""
    weights = package_file(EFFICIENTNET_PACKAGE, EFFICIENTNET_WEIGHTS)
    minilm = package_file(MINILM_PACKAGE, "model")
    text = load_minilm(minilm, device=device, precision=precision, memory_mb=text_memory_mb)
    digest = hashlib.sha256(weights.read_bytes())
    digest.update((minilm / "model.safetensors").read_bytes())
    adapter = None
    if name == OFFLINE_CLIP:
        adapter = load_adapter(ADAPTER_WEIGHTS)
        digest.update(ADAPTER_WEIGHTS.read_bytes())
    fingerprint = Fingerprint(name, digest.hexdigest(), PREPROCESSING, precision)
    network = fold_batch_norms(load_efficientnet(weights))
    return Mini(network, text, IMAGENET_CLASSNAMES, fingerprint, device, adapter)


def load_efficientnet(weights: Path) -> nn.Module:
    """EfficientNet-Lite0 with the weights of a file in the original TensorFlow port's naming."""
    network: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    try:
        stored = torch.load(weights, map_location="cpu", weights_only=True)
        # Both list the same layers in the same order under different names; shapes and last parts of names must agree.
        names = dict(zip(network.state_dict(), stored, strict=True))
        if any(ours.rpartition(".")[2] != theirs.rpartition(".")[2] for ours, theirs in names.items()):
            raise ValueError("parameters are in another order")
        network.load_state_dict({ours: stored[theirs] for ours, theirs in names.items()})
    except (RuntimeError, ValueError, UnpicklingError) as error:
        raise ModelError(
            f"not the weights of EfficientNet-Lite0: {error}", where=str(weights), remedy=OFFLINE_REMEDY
        ) from error
    return network.eval()


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """The network with each batch norm merged into the convolution before it: the same function, a third faster."""
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    norms = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    for convolution, (name, norm) in zip(convolutions, norms, strict=True):
        mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, mean, variance, norm.eps, norm.weight, norm.bias
        )
        network.set_submodule(name, norm.get_submodule("act"))
    return network


def package_file(package: str, path: str) -> Path:
    """A file that an offline model package carries."""
    try:
        file = Path(str(files(package).joinpath(path)))
    except ModuleNotFoundError as error:
        raise ModelError(f"package {package.replace('_', '-')} is not installed", remedy=OFFLINE_REMEDY) from error
    if not file.exists():
        raise ModelError(f"package {package.replace('_', '-')} lacks {path}", remedy=OFFLINE_REMEDY)
    return file
