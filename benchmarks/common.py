"""What the benchmarks share: a random model, real class names and pictures, interleaved timing, memory, a table."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from torch import Tensor

from ipo.clip.openclip import OpenClip, Preprocess
from ipo.clip.text.engine import CPU_ROWS
from ipo.clip.text.packing import packs
from ipo.clip.text.tokens import Tokens
from ipo.data.images import decode_image
from ipo.data.types import Item
from ipo.scoring import ImageSet

MODEL = "ViT-B-16-quickgelu"
BLOCK_FLOPS = 24
"""Floating-point operations of a block's linear layers for one row, in squared tower widths."""

PROMPTS = (
    "a photo of a {}.",
    "a {}.",
    "a good photo of the {}.",
    "itap of a {}.",
    "a low resolution photo of a {}.",
    "a bright photo of one {} in the wild.",
    "a close-up photo of a {}, a kind of object.",
    "take a high-quality photo of a {}.",
)
"""Eight prompts of mixed length, in the manner of the hand-made ones for CLIP; two go on behind the class name."""

LONG_PROMPTS = (
    "Categorize the {} shown in the image.",
    "Take an awe-inspiring photograph of {} that beautifully captures its essence with exceptional clarity, vibrant "
    "colors, impeccable composition, and mesmerizing details.",
    "Take a well-composed photo of a {} with optimal lighting, focus, and minimal distractions.",
    "Describe the distinguishing characteristics of the {} in the image.",
    "Use a higher resolution camera to capture the vehicle photo {}.",
    "Identify the unique visual features of the {} flower accurately.",
    "A photo of a {}, a type of large-scale scene.",
    "Capture a high-quality, well-lit image of a person flawlessly demonstrating the {} action with impeccable visual "
    "representation to achieve unmatched.",
)
"""Best prompts that the paper reports (arXiv 2410.15397): most of their words stand behind the class name."""

WORDS = (
    "accordion airplane anchor apple arch axe badge ball banjo barn basket bat beaver bell bench bike bird "
    "book boot bottle bowl brain bridge broom brush bucket bus butterfly button cake camel camera candle "
    "cannon canoe car cat chair clock cloud coat coin compass cougar crab crane crocodile crown cup deer desk "
    "dog dolphin door dragonfly drum duck easel elephant emu engine eye fan fence ferry flag flamingo flute "
    "fork fountain fox garlic gate glove goat goose guitar hammer harp hat headphone helicopter helmet "
    "hedgehog ibis iguana island jacket jar kangaroo kettle ladder lamp lemon leopard lion lobster lotus "
    "mandolin mask"
)
"""A hundred plain class names."""


def arguments(description: str) -> argparse.Namespace:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: does it run at all?")
    root = os.environ.get("IPO_TEST_DATA")
    parser.add_argument("--data-root", type=Path, default=Path(root) if root else None, help="folder with caltech-101")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each timing; the median counts")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of both sides")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.rounds = 1 if options.quick else options.rounds
    return options


def random_model(seed: int = 0) -> Any:
    """The open_clip module of ViT-B/16 with random weights: as fast as a trained one."""
    torch.manual_seed(seed)
    module = open_clip.model.CLIP(**open_clip.get_model_config(MODEL))
    open_clip.model.set_model_preprocess_cfg(module, {**vars(open_clip.transform.PreprocessCfg()), "size": 224})
    return module.eval().requires_grad_(False)


def random_clip(precision: str = "float32", memory_mb: int = 512) -> tuple[OpenClip, Any]:
    """A random model as `ipo` has it, and its open_clip module as the peer has it."""
    module = random_model()
    transform = open_clip.image_transform(224, is_train=False)
    tokenizer = open_clip.get_tokenizer(MODEL)
    preprocess = Preprocess(transform, "standard")
    name = f"random {MODEL}"
    clip = OpenClip.from_module(module, tokenizer, preprocess, name, precision=precision, text_memory_mb=memory_mb)
    return clip, module


def forget(clip: OpenClip) -> None:
    """Have a model tokenize and encode every text anew, as its peer does."""
    clip.use_text_cache(None)
    clip._tokens.words.cache_clear()


def image_set(features: Tensor, classes: int) -> ImageSet:
    """Features (N, D) with the labels that they would have as shots of `classes` classes."""
    return ImageSet(tuple(Item(Path("-"), index % classes) for index in range(len(features))), features)


def classnames(root: Path | None) -> tuple[list[str], str]:
    """Caltech101's 100 class names in label order where its split file is there, else plain words; and which."""
    file = root / "caltech-101" / "split_zhou_Caltech101.json" if root else None
    if file is None or not file.is_file():
        return WORDS.split(), "100 plain words"
    rows = json.loads(file.read_text(encoding="utf-8"))["train"]
    names = dict(sorted((label, name.replace("_", " ")) for _, label, name in rows))
    return list(names.values()), f"{len(names)} Caltech101 names"


def pictures(root: Path | None, count: int) -> tuple[list[Image.Image], str]:
    """`count` Caltech101 pictures from its archive where that is there, else noise; decoded, and which."""
    archive = root / "caltech-101" / "101_ObjectCategories.tar.gz" if root else None
    if archive is None or not archive.is_file():
        noise = (torch.rand(count, 200, 300, 3) * 255).byte().numpy()
        return [Image.fromarray(picture) for picture in noise], "noise pictures"
    found: list[Image.Image] = []
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.endswith(".jpg") and len(found) < count:
                stream = tar.extractfile(member)
                assert stream is not None
                found.append(decode_image(stream.read(), Path(member.name)))
            elif len(found) == count:
                break
    return found, "Caltech101 pictures"


def medians(functions: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each function; they take turns, so that what else the machine does meets all of them."""
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, measured in zip(functions, seconds, strict=True):
            start = time.perf_counter()
            function()
            measured.append(time.perf_counter() - start)
    return [statistics.median(measured) for measured in seconds]


_BEST_RATE: dict[torch.dtype, float] = {}


def matmul_rate(rows: int = 2048, dtype: torch.dtype = torch.float32) -> float:
    """Floating-point operations a second of the tower's widest product, the best seen so far: the ceiling here."""
    left, right = torch.randn(rows, 512).to(dtype), torch.randn(2048, 512).to(dtype)
    best = min(medians([lambda: torch.nn.functional.linear(left, right)], 1)[0] for _ in range(30))
    _BEST_RATE[dtype] = max(_BEST_RATE.get(dtype, 0.0), 2 * rows * 512 * 2048 / best)
    return _BEST_RATE[dtype]


def computed_positions(texts: Sequence[str]) -> int:
    """Token positions that the engine puts through the tower for `texts` on a CPU."""
    tokens = Tokens(open_clip.get_tokenizer(MODEL), 77)
    sequences = list(dict.fromkeys(tuple(tokens.sequence(text)) for text in texts))
    return sum(len(pack.ids) for pack in packs(sequences, CPU_ROWS))


def linear_operations(rows: int, width: int = 512, blocks: int = 12) -> float:
    """Floating-point operations of the tower's linear layers for `rows` positions."""
    return float(BLOCK_FLOPS * width**2 * rows * blocks)


def peak_memory(function: Callable[..., object], *values: object) -> float:
    """Peak resident memory in MB of a fresh process that does nothing but `function(*values)`."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report_peak, args=(sender, function, values))
    process.start()
    sender.close()
    peak: float = receiver.recv()
    process.join()
    return peak


def _report_peak(sender: Any, function: Callable[..., object], values: Sequence[object]) -> None:
    function(*values)
    sender.send(high_water_mark())


def high_water_mark() -> float:
    """Peak resident memory of this process in MB."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # Linux hands ru_maxrss on from the process that started this one; VmHWM is this program's own.
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) / 1024


def print_setting(rate: float, inputs: str) -> None:
    """What the figures depend on: threads, torch, the measured matmul rate, and the inputs."""
    threads = torch.get_num_threads()
    print(f"{threads} threads, torch {torch.__version__}, matmul {rate / 1e9:.0f} GFLOP/s, {inputs}", flush=True)


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A plain table with columns as wide as they need."""
    lines = [[_cell(value) for value in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    print(f"\n{title}")
    for line in lines:
        cells = [f"{line[0]:<{widths[0]}}"] + [
            f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True)
        ]
        print("  " + "  ".join(cells))


def print_result(**figures: float) -> None:
    """The last line: ratios and memory as one JSON object."""
    print(json.dumps({name: float(f"{value:.4g}") for name, value in figures.items()}), flush=True)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
