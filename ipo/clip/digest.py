"""What a module computes, as a hash: its weights, and what no weight shows."""

from __future__ import annotations

import hashlib

import torch
from torch import nn


def model_hash(module: nn.Module) -> str:
    """sha256 over the architecture, and over names, types, shapes and bytes of all weights and buffers."""
    digest = hashlib.sha256(architecture(module).encode())
    # The buffers add those that are in no state dict, such as an attention mask.
    tensors = dict(module.named_buffers()) | module.state_dict()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def architecture(module: nn.Module) -> str:
    """The layers of a module as it shows itself, and the plain settings of each, such as heads, pooling and epsilon."""
    settings = [
        f"{name} {type(layer).__name__} {attribute}={value!r}"
        for name, layer in module.named_modules()
        for attribute, value in sorted(vars(layer).items())
        if not attribute.startswith("_") and isinstance(value, bool | int | float | str)
    ]
    return "\n".join([repr(module), *settings])
