"""Prompts x sets for `mini` beside `mini-conse`.

`PYTHONPATH=benchmarks python -m mini_training.table pacs@photo caltech101 --root FOLDER`: a set is a dataset's test
images, or all images of one domain. Nothing is chosen here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from ipo.clip.base import ClipModel
from ipo.clip.features import ImageFeatureStore
from ipo.clip.load import load_clip
from ipo.config import STAND_INS, ClipSettings
from ipo.data.load import load_dataset
from ipo.data.types import Dataset
from ipo.metrics import wilson_interval
from ipo.scoring import ImageSet
from ipo.store.cache import cache_folder

PROMPTS = (
    "<CLASS>", "a photo of a <CLASS>.", "a picture of a <CLASS>.", "a drawing of a <CLASS>.", "a sketch of a <CLASS>.",
    "a pencil sketch of a <CLASS>.", "a cartoon of a <CLASS>.", "a clip art of a <CLASS>.", "a painting of a <CLASS>.",
    "a black and white drawing of a <CLASS>.", "a blurry photo of a <CLASS>.", "a photo of a <CLASS>, a type of food.",
)  # fmt: skip


def hits(clip: ClipModel, dataset: Dataset, images: ImageSet, prompt: str) -> Tensor:
    """Which images (N,) the prompt finds the class of."""
    texts = clip.encode_texts([prompt.replace("<CLASS>", name) for name in dataset.classnames])
    return (images.features @ texts.T).argmax(dim=1) == images.labels


def read(spec: str, root: Path | None) -> Dataset:
    """The dataset of a spec `NAME[@DOMAIN]`."""
    name, _, domain = spec.partition("@")
    return load_dataset(name, root, domains=(domain,) if domain else ())


def main() -> None:
    """Print a Markdown table: mini-conse | mini, with 95% intervals (Wilson)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", help="dataset, or dataset@domain (then all its images)")
    parser.add_argument("--root", type=Path)
    arguments = parser.parse_args()
    models = [load_clip(ClipSettings(model=name), offline=True) for name in reversed(STAND_INS)]
    print("| prompt | " + " | ".join(arguments.sets) + " |\n|---|" + "---|" * len(arguments.sets))
    cells: dict[tuple[str, str], str] = {}
    for spec in arguments.sets:
        dataset = read(spec, arguments.root)
        items = dataset.train + dataset.val + dataset.test if "@" in spec else dataset.test
        found = []
        for clip in models:
            images = ImageSet(*ImageFeatureStore(clip, cache_folder() / "features").load(items))
            found.append({prompt: hits(clip, dataset, images, prompt) for prompt in PROMPTS})
        for prompt in PROMPTS:
            old, new = (table[prompt].float() for table in found)
            low, high = wilson_interval(float(new.mean()), len(new))
            change = new - found[1][PROMPTS[1]].float()
            error = float(change.std() / len(change) ** 0.5)
            cells[spec, prompt] = (
                f"{100 * old.mean():.1f} \\| {100 * new.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"
                f" ({100 * change.mean():+.1f} ± {100 * error:.1f})"
            )
    for prompt in PROMPTS:
        print(f"| {prompt} | " + " | ".join(cells[spec, prompt] for spec in arguments.sets) + " |")


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
