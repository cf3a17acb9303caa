"""What `mini` has learnt beside ConSE: how drawings look, and that wording matters. Two small nets, gated by style.

Experts k read the object on both sides. The image says how far it is a matter for each expert (by the statistics of its
early layers, which carry style), and so does the text; an expert's evidence counts as far as both choose it:
`score = (1 - s) <e, e'> + s sum_k sqrt(g_k g'_k) <f_k, f'_k>` with the experts' share s, a half in training. So wording
and look interact; a score of style alone would be the same for every class and change nothing.
Shape legend: B images, L places of a map, N texts, P pooled features, S style statistics, W sentence width, A adapter
width, K experts.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from ipo.errors import ModelError

STYLE_BLOCKS = (0, 1, 2, 4)
"""Blocks of the network after which the style is read, and after the stem."""
EVEN = 0.5
"""Share of the experts in a score as it is trained."""
_INPUT_BOUND = 5.0
"""Standard deviations beyond which an input feature is cut."""


def see(network: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, 1000), pooled features (B, P) and style statistics (B, S) of pixels (B, 3, H, W).

    `network` is timm's EfficientNet; the style is the mean and the deviation of each channel of early maps.
    """
    maps, style = _last_maps(network, pixels)
    pooled = network.get_submodule("global_pool")(maps).flatten(1)
    return network.get_submodule("classifier")(pooled), pooled, style


def see_places(network: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, 1 + L, 1000) and features (B, 1 + L, P) of an image and the L places of its last map, style (B, S).

    The last layer is linear: the means over the places are the pooled features and the logits of the image.
    """
    maps, style = _last_maps(network, pixels)
    pooled = network.get_submodule("global_pool")(maps).flatten(1)
    places = torch.cat([pooled[:, None], maps.flatten(2).transpose(1, 2)], dim=1)
    return network.get_submodule("classifier")(places), places, style


def has_places(network: nn.Module) -> bool:
    """Whether a network has the layers that `see` and `see_places` read."""
    return {"conv_stem", "blocks", "conv_head", "global_pool", "classifier"} <= {
        name for name, _ in network.named_children()
    }


def _last_maps(network: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The maps (B, P, H, W) before they are pooled, and style statistics (B, S)."""
    maps = network.get_submodule("bn1")(network.get_submodule("conv_stem")(pixels))
    style = [_statistics(maps)]
    for index, block in enumerate(network.get_submodule("blocks").children()):
        maps = block(maps)
        if index in STYLE_BLOCKS:
            style.append(_statistics(maps))
    return network.get_submodule("bn2")(network.get_submodule("conv_head")(maps)), torch.cat(style, dim=1)


def _statistics(maps: Tensor) -> Tensor:
    """Mean and standard deviation (B, 2C) of each channel of maps (B, C, H, W)."""
    mean, square = maps.mean(dim=(2, 3)), maps.square().mean(dim=(2, 3))
    return torch.cat([mean, (square - mean * mean).clamp(min=0).sqrt()], dim=1)


class ImageAdapter(nn.Module):
    """Image side: what `see` found and the ConSE feature (B, W) to the learned feature (B, A) of unit length."""

    def __init__(self, pooled: int, style: int, text: int, plain: int, expert: int, experts: int, hidden: int) -> None:
        super().__init__()
        self.pooled, self.experts, self.scale = pooled, experts, text**0.5 / 2
        self.register_buffer("mean", torch.zeros(pooled + style))
        self.register_buffer("deviation", torch.ones(pooled + style))
        self.dropout = nn.Dropout(0.3)
        self.gate = nn.Sequential(nn.Linear(pooled + style, hidden), nn.GELU(), nn.Linear(hidden, experts))
        self.plain = nn.Linear(pooled + text, plain)
        self.expert = nn.Linear(pooled + text, expert * experts)

    def forward(self, pooled: Tensor, style: Tensor, conse: Tensor, share: float = EVEN) -> Tensor:
        """The learned feature (B, A)."""
        seen = (torch.cat([pooled, style], dim=1) - self.get_buffer("mean")) / self.get_buffer("deviation")
        seen = seen.clamp(-_INPUT_BOUND, _INPUT_BOUND)
        gate = self.gate(self.dropout(seen)).softmax(dim=-1)
        content = self.dropout(torch.cat([seen[:, : self.pooled], conse * self.scale], dim=1))
        return gated(self.plain(content), self.expert(content), gate, share)


class TextAdapter(nn.Module):
    """Text side: centred sentence embeddings (N, W) to learned features (N, A) of unit length."""

    def __init__(self, text: int, plain: int, expert: int, experts: int, hidden: int, gate: int) -> None:
        super().__init__()
        self.scale = text**0.5
        self.gate = nn.Sequential(nn.Linear(text, gate), nn.GELU(), nn.Linear(gate, experts))
        self.linear, self.plain = nn.Linear(text, plain), _mlp(text, hidden, plain)
        self.expert = _mlp(text, hidden, expert * experts)

    def forward(self, text: Tensor, share: float = EVEN) -> Tensor:
        """The learned features (N, A)."""
        text = text * self.scale
        gate = self.gate(text).softmax(dim=-1)
        return gated(self.linear(text) + self.plain(text), self.expert(text), gate, share)


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Dropout(0.1), nn.Linear(hidden, out))


def gated(plain: Tensor, expert: Tensor, gate: Tensor, share: float) -> Tensor:
    """Plain evidence (N, D) and the experts' (N, K * E), weighted by a gate (N, K): (N, D + K * E), unit length.

    The experts have this `share` of it, between 0 and 1.
    """
    parts = normalize(expert.view(*gate.shape, -1), dim=-1) * (share * gate).sqrt().unsqueeze(-1)
    return torch.cat([normalize(plain, dim=-1) * math.sqrt(1 - share), parts.flatten(-2)], dim=-1)


class Adapter(nn.Module):
    """Both sides; several of them, trained from other seeds, speak with one voice by the mean of their scores."""

    def __init__(self, sides: list[tuple[ImageAdapter, TextAdapter]], weight: float, share: float = EVEN) -> None:
        super().__init__()
        self.images = nn.ModuleList(image for image, _ in sides)
        self.texts = nn.ModuleList(text for _, text in sides)
        self.weight, self.share = weight, share

    def image(self, pooled: Tensor, style: Tensor, conse: Tensor) -> Tensor:
        """The feature of images (B, D) of unit length: ConSE and what was learnt."""
        return self._joined(conse, [side(pooled, style, conse, self.share) for side in self.images])

    def text(self, centred: Tensor) -> Tensor:
        """The feature (..., D) of centred sentence embeddings (..., W)."""
        flat = centred.flatten(0, -2)
        return self._joined(flat, [side(flat, self.share) for side in self.texts]).view(*centred.shape[:-1], -1)

    def _joined(self, base: Tensor, learned: list[Tensor]) -> Tensor:
        share = math.sqrt(self.weight / len(learned))
        return torch.cat([base, *(part * share for part in learned)], dim=-1) / math.sqrt(1 + self.weight)

    @property
    def width(self) -> int:
        """What the feature is wider than ConSE's."""
        return sum(int(side.get_submodule("linear").get_parameter("bias").shape[0]) for side in self.texts) + sum(
            int(side.get_submodule("expert.3").get_parameter("bias").shape[0]) for side in self.texts
        )


def save_adapter(path: Path, adapter: Adapter, sizes: dict[str, int]) -> None:
    """Weights in half precision, and what it takes to build the nets again."""
    weights = {name: value.detach().half().contiguous() for name, value in adapter.state_dict().items()}
    facts = {"sizes": sizes, "sides": len(adapter.images), "weight": adapter.weight, "share": adapter.share}
    # One entry: safetensors writes several in an order that changes from one process to the next.
    save_file(weights, path, metadata={"adapter": json.dumps(facts)})


def load_adapter(path: Path) -> Adapter:
    """The adapter of a file, in float32. Raises `ModelError` where the file is damaged or another one."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["adapter"])
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        sides = [new_sides(**facts["sizes"]) for _ in range(facts["sides"])]
        adapter = Adapter(sides, facts["weight"], facts["share"])
        adapter.load_state_dict(weights)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"not the weights of mini: {error}", where=str(path), remedy="Install ipo again") from error
    return adapter.eval()


def new_sides(
    *, pooled: int, style: int, text: int, plain: int, expert: int, experts: int, hidden: int, gate: int
) -> tuple[ImageAdapter, TextAdapter]:
    """Both sides, untrained."""
    image = ImageAdapter(pooled, style, text, plain, expert, experts, gate)
    return image, TextAdapter(text, plain, expert, experts, hidden, gate)
