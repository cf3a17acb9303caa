"""The text engine beside open_clip's `encode_text`, on the same texts and weights, both tokenizing them anew each time.

python benchmarks/text_engine.py [--quick] [--data-root FOLDER] [--rounds N]
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from common import (
    LONG_PROMPTS,
    PROMPTS,
    arguments,
    classnames,
    computed_positions,
    forget,
    image_set,
    linear_operations,
    matmul_rate,
    medians,
    peak_memory,
    print_result,
    print_setting,
    print_table,
    random_clip,
)
from open_clip import IMAGENET_CLASSNAMES, get_tokenizer
from torch import Tensor
from torch.nn.functional import normalize

from ipo.clip.openclip import OpenClip
from ipo.prompt import CLASS_PLACEHOLDER, Prompt
from ipo.scoring import score_prompts

TOKENIZER = get_tokenizer("ViT-B-16")
PEER_BATCH = 50
"""Texts that the peer encodes at once: its fastest among 10, 25, 50, 100, 200 and 400."""


SHOTS = 16


def texts_of(prompts: tuple[str, ...], names: list[str]) -> list[str]:
    return [prompt.format(name) for prompt in prompts for name in names]


def ours(clip: OpenClip, texts: list[str]) -> Tensor:
    forget(clip)
    return clip.encode_texts(texts)


@torch.no_grad()
def peer(module: Any, texts: list[str], dtype: torch.dtype) -> Tensor:
    ids = TOKENIZER(texts)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        batches = [module.encode_text(part, normalize=True) for part in ids.split(PEER_BATCH)]
    return torch.cat(batches).float()


def compare(title: str, texts: list[str], rounds: int) -> dict[str, float]:
    """Time both in both precisions, print the table, and return ratios and differences."""
    (single, module), (low, _) = random_clip(), random_clip("bfloat16")
    exact = peer(module, texts, torch.float32)
    differences = [float((ours(clip, texts) - exact).abs().max()) for clip in (single, low)]
    differences.insert(1, 0.0)
    differences.append(float((peer(module, texts, torch.bfloat16) - exact).abs().max()))
    engine, padded, engine_low, padded_low = medians(
        [
            lambda: ours(single, texts),
            lambda: peer(module, texts, torch.float32),
            lambda: ours(low, texts),
            lambda: peer(module, texts, torch.bfloat16),
        ],
        rounds,
    )
    rows, all_rows = computed_positions(texts), 77 * len(texts)
    ceilings = {dtype: matmul_rate(dtype=dtype) for dtype in (torch.float32, torch.bfloat16)}
    table = []
    for name, seconds, count, dtype, difference in (
        ("engine float32", engine, rows, torch.float32, differences[0]),
        ("encode_text float32", padded, all_rows, torch.float32, differences[1]),
        ("engine bfloat16", engine_low, rows, torch.bfloat16, differences[2]),
        ("encode_text bfloat16", padded_low, all_rows, torch.bfloat16, differences[3]),
    ):
        share = linear_operations(count) / seconds / ceilings[dtype]
        table.append((name, seconds, padded / seconds, count, f"{share:.0%}", f"{difference:.1e}"))
    header = ("", "seconds", "times encode_text", "positions", "of matmul rate", "largest difference")
    print_table(f"{title}: {len(texts)} texts", header, table)
    return {
        "ratio": padded / engine,
        "difference": differences[0],
        "bfloat16_gain": engine / engine_low,
        "bfloat16_ratio": padded_low / engine_low,
    }


def growth(rounds: int, quick: bool) -> float:
    """Time over prompts and over classes; returns the largest time a position over the smallest."""
    clip, _ = random_clip()
    names = list(IMAGENET_CLASSNAMES)
    scale = 25 if quick else 1
    sizes = [(count, 200 // scale) for count in (2, 4, 8, 16)] + [
        (8, count // scale) for count in (125, 250, 500, 1000)
    ]
    prompts = PROMPTS + LONG_PROMPTS
    cases = [texts_of(prompts[:count], names[:classes]) for count, classes in sizes]
    seconds = medians([partial(ours, clip, texts) for texts in cases], rounds)
    table, rates = [], []
    for (count, classes), texts, measured in zip(sizes, cases, seconds, strict=True):
        rows = computed_positions(texts)
        rates.append(measured / rows)
        table.append((f"{count} x {classes}", measured, 1e3 * measured / len(texts), rows, 1e3 * measured / rows))
    header = ("prompts x classes", "seconds", "ms a text", "positions", "ms a position")
    print_table("Growth with prompts and with classes (prompts 9 to 16 are long)", header, table)
    return max(rates) / min(rates)


def score_many(classes: int) -> None:
    """What the scoring process does for one step: 8 prompts over many class names, on 16 images of each."""
    clip, _ = random_clip()
    images = image_set(normalize(torch.randn(SHOTS * classes, clip.dim), dim=1), classes)
    prompts = [Prompt(text.format(CLASS_PLACEHOLDER)) for text in PROMPTS]
    score_prompts(clip, prompts, images, list(IMAGENET_CLASSNAMES)[:classes])


def load_only() -> None:
    """The model without any text of the benchmark."""
    random_clip()


def main() -> None:
    options = arguments(__doc__ or "")
    names, source = classnames(options.data_root)
    names = names[:4] if options.quick else names
    rate = matmul_rate()
    print_setting(rate, source)
    mixed = compare("Prompts of mixed length", texts_of(PROMPTS, names), options.rounds)
    long = compare("Prompts with many words behind the class", texts_of(LONG_PROMPTS, names), options.rounds)
    spread = growth(options.rounds, options.quick)
    classes = 20 if options.quick else 1000
    loaded, peak = peak_memory(load_only), peak_memory(score_many, classes)
    scored = f"and {classes} names x 8 prompts x {SHOTS * classes} images"
    print_table("Memory", ("process", "peak MB"), [("model loaded and checked", loaded), (scored, peak)])
    figures = {f"mixed_{name}": value for name, value in mixed.items()}
    figures |= {f"long_{name}": value for name, value in long.items()}
    print_result(**figures, growth_spread=spread, peak_mb=peak)


if __name__ == "__main__":
    main()
