"""LASP and patch features with ViT-B/16 at full size: ImageNet's 1,000 names, 1,600 images; time and peak memory.

LASP's own code encodes 77 padded positions of every class name in each step, twice: once for the images and once for
the loss between texts. The peer here encodes those texts once, forth and back. Patch features have no peer: what counts
is that they are made, kept and read within a few GB.

python benchmarks/methods_memory.py [--quick] [--data-root FOLDER]
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import (
    MODEL,
    arguments,
    high_water_mark,
    image_set,
    matmul_rate,
    print_result,
    print_setting,
    print_table,
    random_clip,
    random_model,
)
from open_clip import IMAGENET_CLASSNAMES, get_tokenizer
from PIL import Image
from torch.nn.functional import normalize

from ipo.clip.lengths import TextRoom
from ipo.clip.patches import PatchStore
from ipo.clip.text.contexts import context_sequences
from ipo.clip.text.plain import PlainText
from ipo.clip.text.tokens import Tokens
from ipo.data.types import Item
from ipo.methods import FitRun
from ipo.task import FewShotTask
from ipo_baselines.lasp import METHOD as LASP

VECTORS = 4
Figures = dict[str, float]


def lasp_steps(names: list[str], images: int) -> Figures:
    """Seconds of a step, and of the hand-written texts with the first step, which is the estimate."""
    clip, _ = random_clip()
    shots = image_set(normalize(torch.randn(images, clip.dim), dim=-1), len(names))
    task = FewShotTask("-", tuple(names), 1, 1, clip, "a photo of a <CLASS>.", TextRoom.of(clip, names), shots, shots)
    options = LASP.configure("imagenet", 16, {"epochs": 2, "batch": images, "noise_rate": 1.0})
    marks = [time.perf_counter()]
    run = FitRun(
        report=lambda _: marks.append(time.perf_counter()), follow=lambda *_: marks.append(time.perf_counter())
    )
    LASP.fit(task, options, run)
    return {"before": marks[1] - marks[0], "step": marks[-1] - marks[-2]}


def padded_step(names: list[str], _images: int) -> Figures:
    """Seconds that all texts of one step take with 77 positions, forth and back."""
    module = random_model()
    tokens = Tokens(get_tokenizer(MODEL), 77)
    context = (0.02 * torch.randn(1, 1, VECTORS, module.token_embedding.weight.shape[1])).requires_grad_()
    target, start = torch.randn(module.text_projection.shape[1]), time.perf_counter()
    for first in range(0, len(names), 50):  # with all of them at once the activations alone would take 50 GB
        part = names[first : first + 50]
        sequences = context_sequences(tokens, part, context, context[:, :, :0], ".")
        texts = PlainText(module, tokens, torch.float32, batch=len(part)).encode(sequences, context.flatten(0, 2))
        torch.autograd.backward((texts @ target).sum())
    return {"step": time.perf_counter() - start}


def patch_features(names: list[str], images: int) -> Figures:
    """Seconds to make and store the patches of pictures of noise, to read them all again, and their MB on the disk."""
    del names
    clip, _ = random_clip()
    with tempfile.TemporaryDirectory() as folder:
        items = noise_pictures(Path(folder), images)
        start = time.perf_counter()
        PatchStore(clip, Path(folder) / "store", workers=0).load(items)
        made = time.perf_counter()
        found = PatchStore(clip, Path(folder) / "store", workers=0).load(items)
        for first in range(0, len(found), 32):
            found.take(range(first, min(first + 32, len(found))))
        read = time.perf_counter()
        size = sum(path.stat().st_size for path in Path(folder).glob("store/*-patches/*.safetensors"))
    return {"make": made - start, "read": read - made, "disk": size / 1e6}


def noise_pictures(folder: Path, count: int) -> list[Item]:
    """Different pictures of 224 x 224 noise as files."""
    items = []
    for index in range(count):
        generator = torch.Generator().manual_seed(index)
        pixels = torch.randint(0, 256, (16, 16, 3), generator=generator, dtype=torch.uint8).numpy()
        Image.fromarray(pixels).resize((224, 224)).save(folder / f"{index}.png")
        items.append(Item(folder / f"{index}.png", 0))
    return items


def measured(function: Callable[..., Figures], *values: object) -> Figures:
    """Figures of a fresh process, and its peak memory in MB as `peak`."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(sender, function, values))
    process.start()
    sender.close()
    figures: Figures = receiver.recv()
    process.join()
    return figures


def _measure(sender: Any, function: Callable[..., Figures], values: tuple[object, ...]) -> None:
    figures = function(*values)
    sender.send({**figures, "peak": high_water_mark()})


def main() -> None:
    options = arguments(__doc__ or "")
    names, images, few = list(IMAGENET_CLASSNAMES), 1600, 32
    if options.quick:
        names, images, few = names[:20], 16, 4
    print_setting(matmul_rate(), f"{len(names)} ImageNet names")
    ours, peer = measured(lasp_steps, names, few), measured(padded_step, names, few)
    rows = [
        ("lasp: the 34 hand-written prompts, once", ours["before"], ""),
        (f"lasp: a step of {few} images", ours["step"], ours["peak"]),
        ("77 positions, texts alone, 50 at once", peer["step"], peer["peak"]),
    ]
    print_table(f"LASP on {len(names)} names", ("", "seconds", "peak MB"), rows)
    patches = measured(patch_features, names, images)
    title = f"Patch features of {images} images, {patches['disk']:.0f} MB on the disk"
    table = [("made and stored", patches["make"], patches["peak"]), ("mapped, and all read", patches["read"], "")]
    print_table(title, ("", "seconds", "peak MB"), table)
    print_result(
        lasp_step=ours["step"],
        lasp_peak_mb=ours["peak"],
        patches_seconds=patches["make"],
        patches_mb=patches["disk"],
        patches_peak_mb=patches["peak"],
    )


if __name__ == "__main__":
    main()
