"""Peak memory of one CoCoOp step with ViT-B/16: 32 images, each with texts of its own for 50 classes.

The reference can do one image at a time. Ours cuts a batch into chunks whose gradients add up, so memory does not grow
with the batch; `texts_at_once` trades memory for larger products.

python benchmarks/cocoop_memory.py [--quick] [--data-root FOLDER]
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from common import (
    arguments,
    class_names,
    matmul_rate,
    peak_memory,
    print_result,
    print_setting,
    print_table,
    random_clip,
)
from torch.nn.functional import normalize

from baselines.cocoop import METHOD, CoCoOpOptions
from ipo.data.types import Item
from ipo.evaluate import ImageSet
from ipo.methods import FitRun
from ipo.protocols import FewShotTask


def one_step(names: list[str], images: int, texts_at_once: int) -> None:
    """A fit of a single step on random image features."""
    clip, _ = random_clip()
    items = tuple(Item(Path(str(index)), index % len(names)) for index in range(images))
    shots = ImageSet(items, normalize(torch.randn(images, clip.dim), dim=-1))
    task = FewShotTask("random", tuple(names), shots, shots, 1, 1, clip, "a photo of a <CLASS>.")
    METHOD.fit(task, CoCoOpOptions(epochs=1, batch=images, texts_at_once=texts_at_once), FitRun())


def main() -> None:
    options = arguments(__doc__ or "")
    names, source = class_names(options.data_root)
    names, images = (names[:5], 4) if options.quick else (names[:50], 32)
    print_setting(matmul_rate(), source)
    rows = []
    for texts_at_once in (20,) if options.quick else (50, 256):
        start = time.perf_counter()
        peak = peak_memory(one_step, names, images, texts_at_once)
        rows.append((f"{texts_at_once} texts at once", peak, time.perf_counter() - start))
    title = f"CoCoOp, {images} images x {len(names)} classes, the step twice (its time is estimated first)"
    print_table(title, ("", "peak MB", "seconds, loading included"), rows)
    print_result(peak_mb=max(row[1] for row in rows))


if __name__ == "__main__":
    main()
