"""Peak memory of one CoCoOp step with ViT-B/16: 32 images, each with texts of its own for 50 classes.

CoCoOp's own code takes one image a step and encodes its texts with all 77 positions; the peer here is such a step. Ours
cuts a batch into chunks whose gradients add up, so memory does not grow with the batch; `texts_at_once` trades memory
for larger products.

python benchmarks/cocoop_memory.py [--quick] [--data-root FOLDER]
"""

from __future__ import annotations

import time

import torch
from common import (
    MODEL,
    arguments,
    classnames,
    image_set,
    matmul_rate,
    peak_memory,
    print_result,
    print_setting,
    print_table,
    random_clip,
    random_model,
)
from open_clip import get_tokenizer
from torch.nn.functional import cross_entropy, normalize

from ipo.clip.lengths import TextRoom
from ipo.clip.text.contexts import context_sequences
from ipo.clip.text.plain import PlainText
from ipo.clip.text.tokens import Tokens
from ipo.methods import FitRun
from ipo.task import FewShotTask
from ipo_baselines.cocoop import METHOD, CoCoOpOptions

VECTORS = 4


def one_step(names: list[str], images: int, texts_at_once: int) -> None:
    """A fit of a single step on random image features."""
    clip, _ = random_clip()
    shots = image_set(normalize(torch.randn(images, clip.dim), dim=-1), len(names))
    room = TextRoom.of(clip, names)
    task = FewShotTask("random", tuple(names), 1, 1, clip, "a photo of a <CLASS>.", room, shots, shots)
    METHOD.fit(task, CoCoOpOptions(epochs=1, batch=images, texts_at_once=texts_at_once), FitRun())


def peer_step(names: list[str]) -> None:
    """Gradient of one image's loss with `encode_text` on padded positions."""
    module = random_model()
    tokens = Tokens(get_tokenizer(MODEL), 77)
    image = normalize(module.encode_image(torch.randn(1, 3, 224, 224)), dim=-1)
    context = (0.02 * torch.randn(1, 1, VECTORS, module.token_embedding.weight.shape[1])).requires_grad_()
    sequences = context_sequences(tokens, names, context, context[:, :, :0], ".")
    texts = PlainText(module, tokens, torch.float32, batch=len(names)).encode(sequences, context.flatten(0, 2))
    torch.autograd.grad(cross_entropy(100 * image @ texts.T, torch.tensor([0])), context)


def main() -> None:
    options = arguments(__doc__ or "")
    names, source = classnames(options.data_root)
    names, images = (names[:5], 4) if options.quick else (names[:50], 32)
    print_setting(matmul_rate(), source)
    start = time.perf_counter()
    peer = peak_memory(peer_step, names)
    rows = [("peer: 1 image", peer, time.perf_counter() - start)]
    for texts_at_once in (20,) if options.quick else (50, 256):
        start = time.perf_counter()
        peak = peak_memory(one_step, names, images, texts_at_once)
        rows.append((f"{texts_at_once} texts at once", peak, time.perf_counter() - start))
    title = f"CoCoOp, {images} images x {len(names)} classes, our step twice (its time is estimated first)"
    print_table(title, ("", "peak MB", "seconds, loading included"), rows)
    print_result(peer_peak_mb=peer, peak_mb=max(row[1] for row in rows[1:]))


if __name__ == "__main__":
    main()
