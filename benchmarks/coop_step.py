"""One optimisation step of CoOp, 16 shared context vectors and 50 classes, beside the way of its own code.

CoOp's code encodes the 32 images of the batch and 50 texts of 77 positions, forth and back. Ours takes the features
of the images from the cache and puts only the positions that matter through the text engine, the context once.

python benchmarks/coop_step.py [--quick] [--data-root FOLDER] [--rounds N]
"""

from __future__ import annotations

from typing import Any

import torch
from common import (
    arguments,
    classnames,
    linear_operations,
    matmul_rate,
    medians,
    peak_memory,
    print_result,
    print_setting,
    print_table,
    random_clip,
)
from open_clip import get_tokenizer
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ipo.clip.openclip import OpenClip
from ipo.clip.text.contexts import context_sequences
from ipo.clip.text.packing import packs
from ipo.clip.text.plain import PlainText
from ipo.clip.text.tokens import Tokens

BATCH = 32
VECTORS = 16


def our_step(
    clip: OpenClip, context: Tensor, names: list[str], features: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss and gradient (1, 1, M, W) with the text engine and cached image features (B, D)."""
    texts = clip.encode_embeddings(names, context)[0]
    loss = cross_entropy(100 * features @ texts.T, labels)
    return loss.detach(), torch.autograd.grad(loss, context)[0]


def reference_step(
    module: Any, tokens: Tokens, context: Tensor, names: list[str], pixels: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss and gradient with `encode_text` on padded positions and the images (B, 3, H, W) encoded."""
    sequences = context_sequences(tokens, names, context, context[:, :, :0], ".")
    texts = PlainText(module, tokens, torch.float32, batch=len(names)).encode(sequences, context.flatten(0, 2))
    features = normalize(module.encode_image(pixels), dim=-1)
    loss = cross_entropy(100 * features @ texts.T, labels)
    return loss.detach(), torch.autograd.grad(loss, context)[0]


def ours_alone(names: list[str]) -> None:
    """The training process, without the images."""
    clip, _ = random_clip()
    context = 0.02 * torch.randn(1, 1, VECTORS, clip.width)
    features = normalize(torch.randn(BATCH, clip.dim), dim=1)
    our_step(clip, context.requires_grad_(), names, features, torch.arange(BATCH) % len(names))


def main() -> None:
    options = arguments(__doc__ or "")
    names, source = classnames(options.data_root)
    names = names[:5] if options.quick else names[:50]
    rate = matmul_rate()
    print_setting(rate, source)
    clip, module = random_clip()
    torch.manual_seed(1)
    context = (0.02 * torch.randn(1, 1, VECTORS, clip.width)).requires_grad_()
    pixels = torch.randn(2 if options.quick else BATCH, 3, 224, 224)
    labels = torch.arange(len(pixels)) % len(names)
    features = clip.encode_images(pixels)
    tokens = Tokens(get_tokenizer("ViT-B-16"), 77)  # Both sides tokenize the names once, before the steps.
    steps = [
        lambda: our_step(clip, context, names, features, labels),
        lambda: reference_step(module, tokens, context, names, pixels, labels),
    ]
    (loss, gradient), (peer_loss, peer_gradient) = steps[0](), steps[1]()
    ours, reference = medians(steps, max(options.rounds, 1))
    sequences = context_sequences(tokens, names, context, context[:, :, :0], ".")
    rows, all_rows = sum(len(pack.ids) for pack in packs(sequences, 1 << 30)), 77 * len(names)
    table = [
        ("ipo", ours, rows, f"{2 * linear_operations(rows) / ours / rate:.0%}", 1.0),
        ("reference", reference, all_rows, "", reference / ours),
    ]
    print_table(
        f"One CoOp step, {len(names)} classes", ("", "seconds", "positions", "of matmul rate", "times ipo"), table
    )
    loss_error = float((loss - peer_loss).abs())
    gradient_error = float((gradient - peer_gradient).norm() / peer_gradient.norm())
    print(f"\nloss {loss:.6f}, difference {loss_error:.1e}; gradient, relative difference {gradient_error:.1e}")
    peak = peak_memory(ours_alone, names)
    print(f"peak memory of the training process: {peak:.0f} MB")
    print_result(ratio=reference / ours, loss_difference=loss_error, gradient_difference=gradient_error, peak_mb=peak)


if __name__ == "__main__":
    main()
