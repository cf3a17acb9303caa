"""One search step, 8 candidates on 50 base classes, beside the way of the paper's code.

The paper's code, for each candidate: builds the trainer, CLIP twice within it, sends the training images through the
augmenting loader and the image tower again, and encodes 50 texts of 77 tokens. Here one candidate of that is measured
and counted 8 times; it is granted its texts once a candidate instead of once a batch. Ours scores all 8 candidates on
cached image features.

python benchmarks/step.py [--quick] [--data-root FOLDER] [--rounds N]
"""

from __future__ import annotations

from functools import partial
from typing import Any

import open_clip
import torch
from common import (
    MODEL,
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
    pictures,
    print_result,
    print_setting,
    print_table,
    random_clip,
    random_model,
)
from PIL.Image import Image
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ipo.clip.openclip import OpenClip
from ipo.prompt import CLASS_PLACEHOLDER, Prompt
from ipo.scoring import ImageSet, score_prompts

CANDIDATES = 8
BATCH = 50
IMAGE_GFLOP = 35.2
"""Floating-point operations of ViT-B/16's image tower for one picture, in billions."""


def our_step(clip: OpenClip, images: ImageSet, names: list[str]) -> None:
    """Score all candidates, whose texts are new to the model."""
    forget(clip)
    score_prompts(clip, [Prompt(text.format(CLASS_PLACEHOLDER)) for text in PROMPTS], images, names)


def build_model(weights: dict[str, Tensor]) -> Any:
    """CLIP from a checkpoint that is in memory already."""
    module = open_clip.model.CLIP(**open_clip.get_model_config(MODEL))
    module.load_state_dict(weights)
    return module.eval()


@torch.no_grad()
def reference_candidate(
    weights: dict[str, Tensor], tokenize: Any, photos: list[Image], shots: int, names: list[str]
) -> None:
    """One candidate: two models, `shots` augmented views of each class, padded texts, accuracy and loss a batch."""
    build_model(weights)
    module = build_model(weights)
    augment = open_clip.image_transform(224, is_train=True, aug_cfg={"scale": (0.08, 1.0)})
    ids = tokenize([PROMPTS[0].format(name) for name in names])
    texts = module.encode_text(ids, normalize=True)
    labels = torch.arange(len(names)).repeat(shots)
    for begin in range(0, len(labels), BATCH):
        batch = range(begin, min(begin + BATCH, len(labels)))
        pixels = torch.stack([augment(photos[index % len(photos)]) for index in batch])
        logits = 100 * normalize(module.encode_image(pixels), dim=-1) @ texts.T
        target = labels[batch.start : batch.stop]
        float((logits.argmax(dim=1) == target).float().mean())
        float(cross_entropy(logits, target))


def ours_alone(names: list[str]) -> None:
    """The scoring process of one step at 16 shots."""
    clip, _ = random_clip()
    our_step(clip, image_set(normalize(torch.randn(16 * len(names), clip.dim), dim=1), len(names)), names)


def main() -> None:
    options = arguments(__doc__ or "")
    all_names, source = classnames(options.data_root)
    names = all_names[:4] if options.quick else all_names[:50]
    photos, kind = pictures(options.data_root, 4 if options.quick else 50)
    rate = matmul_rate()
    print_setting(rate, f"{source}, {kind}")
    clip, _ = random_clip()
    weights, tokenizer = random_model().state_dict(), open_clip.get_tokenizer(MODEL)
    positions = computed_positions([prompt.format(name) for prompt in PROMPTS for name in names])
    table, ratios = [], {}
    for shots in (1, 16):
        images = image_set(normalize(torch.randn(shots * len(names), clip.dim), dim=1), len(names))
        steps = [
            partial(our_step, clip, images, names),
            partial(reference_candidate, weights, tokenizer, photos, shots, names),
        ]
        steps[0]()
        # The step takes a fraction of a second: the median of several, before the reference and after it.
        first = medians(steps[:1], 3)[0]
        reference = medians(steps[1:], options.rounds if shots == 1 else 1)[0]
        ours = (first + medians(steps[:1], 3)[0]) / 2
        ratios[f"ratio_{shots}_shots"] = CANDIDATES * reference / ours
        work = linear_operations(positions)
        peer_work = shots * len(names) * IMAGE_GFLOP * 1e9 + linear_operations(77 * len(names))
        table += [
            (f"ipo, {shots} shots, 8 candidates", ours, positions, f"{work / ours / rate:.0%}", 1.0),
            (
                f"reference, {shots} shots, 1 candidate",
                reference,
                77 * len(names),
                f"{peer_work / reference / rate:.0%}",
                reference / ours,
            ),
            (f"reference, {shots} shots, 8 candidates", 8 * reference, 8 * 77 * len(names), "", 8 * reference / ours),
        ]
    header = ("", "seconds", "text positions", "of matmul rate", "times ipo")
    print_table(f"One search step, {len(names)} classes", header, table)
    peak = peak_memory(ours_alone, names)
    print(f"\npeak memory of the scoring process: {peak:.0f} MB")
    print_result(**ratios, peak_mb=peak)


if __name__ == "__main__":
    main()
