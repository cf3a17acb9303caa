"""Small random open_clip models of every layout, so that the tests need no weights."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from ipo.clip.openclip import OpenClip, Preprocess
from ipo.clip.text.plain import PlainText
from ipo.clip.text.tokens import Tokens

VISION = {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16}
TEXT = {"context_length": 77, "width": 32, "heads": 2, "layers": 3}
DIM = 16
TOKENIZER = SimpleTokenizer()
TEXTS = [
    "a photo of a cat.",
    "cat",
    "a photo of a dog house.",
    "",
    "a photo of a cat.",
    "itap of one of the many accordions that nobody ever plays, standing in the corner of a dark room somewhere.",
    "a photo of a cat, in the style of a dog.",
]


def to_pixels(image: Any) -> Tensor:
    """A stand-in for a transform: the size of the image as a constant picture."""
    return torch.full((3, 32, 32), image.width / 100)


def tiny_module(
    layout: type = CLIP, *, quick_gelu: bool = False, dtype: torch.dtype = torch.float32, **text: Any
) -> Any:
    """A frozen module in eval mode with spread-out random weights, so that differences between texts are large."""
    torch.manual_seed(0)
    extra = {"multimodal_cfg": {"width": 32, "heads": 2, "layers": 1, "context_length": 76}} if layout is CoCa else {}
    module = layout(DIM, vision_cfg=dict(VISION), text_cfg={**TEXT, **text}, quick_gelu=quick_gelu, **extra)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.mul_(1.5)
    return module.to(dtype).eval().requires_grad_(False)


def tiny_openclip(module: Any = None, **settings: Any) -> OpenClip:
    """The `OpenClip` around a tiny module."""
    return OpenClip.from_module(module or tiny_module(), TOKENIZER, Preprocess(to_pixels, "tiny"), "tiny", **settings)


def tokens_of(module: Any) -> Tokens:
    """The tokens that fit a tiny module."""
    return Tokens(TOKENIZER, getattr(module, "text", module).context_length)


def plain_path(module: Any) -> PlainText:
    """The oracle: `encode_text` on padded ids."""
    return PlainText(module, tokens_of(module), torch.float32)


LAYOUTS = [
    (CLIP, {}),
    (CLIP, {"quick_gelu": True}),
    (CLIP, {"ls_init_value": 0.3}),
    (CLIP, {"width": 48, "heads": 3, "layers": 1, "context_length": 40}),
    (CLIP, {"proj_bias": True}),
    (CLIP, {"proj_type": "none"}),
    (CustomTextCLIP, {}),
    (CustomTextCLIP, {"quick_gelu": True, "pool_type": "eos", "eos_id": 49407}),
]
