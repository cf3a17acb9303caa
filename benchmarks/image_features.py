"""Image features: the store beside a plain loop over the images, and beside plain batches; then a second run.

The peer loop decodes and encodes one picture after the other with the network as timm (for `mini`) or open_clip (for
ViT-B/16, random weights) gives it; the batched peer encodes 64 at once. All take the same pictures and fill no cache.

python benchmarks/image_features.py [--quick] [--data-root FOLDER] [--rounds N]
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from common import arguments, medians, peak_memory, pictures, print_result, print_table, random_clip

from ipo.clip.base import ClipModel
from ipo.clip.features import ImageFeatureStore
from ipo.clip.load import load_clip
from ipo.clip.mini import EFFICIENTNET_PACKAGE, EFFICIENTNET_WEIGHTS, Mini, load_efficientnet, package_file
from ipo.config import ClipSettings
from ipo.data.images import load_image
from ipo.data.types import Item

ALL_PICTURES = 8242
WORKERS = 2
PLAIN_BATCH = 64


def load(name: str) -> ClipModel:
    return load_clip(ClipSettings(model=name, device="cpu"), offline=True) if name == "mini" else random_clip()[0]


def plain_encoder(clip: ClipModel) -> torch.nn.Module:
    """The image side without what `ipo` does to it."""
    tower = clip.image_tower().requires_grad_(False)
    if isinstance(clip, Mini):
        tower.classifier = load_efficientnet(package_file(EFFICIENTNET_PACKAGE, EFFICIENTNET_WEIGHTS))
    return tower


@torch.no_grad()
def plain(clip: ClipModel, encode: torch.nn.Module, items: Sequence[Item], batch: int) -> None:
    """Decode and encode in one process, `batch` pictures at once."""
    for start in range(0, len(items), batch):
        encode(torch.stack([clip.preprocess(load_image(item.path)) for item in items[start : start + batch]]))


def extract(clip: ClipModel, items: Sequence[Item], workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ImageFeatureStore(clip, Path(folder), workers=workers).load(items)


def extract_alone(name: str, items: Sequence[Item]) -> None:
    """What a fresh process does whose memory is measured."""
    extract(load(name), items, WORKERS)


def save_pictures(root: Path | None, count: int, folder: Path) -> tuple[list[Item], str]:
    found, source = pictures(root, count)
    items = [Item(folder / f"{number}.jpg", 0) for number in range(len(found))]
    for item, picture in zip(items, found, strict=True):
        picture.save(item.path, quality=95)
    return items, source


def compare(name: str, items: Sequence[Item], rounds: int) -> float:
    """Print the table of one model; how many times as fast as the plain loop the store is."""
    clip = load(name)
    encode = plain_encoder(clip)
    ways: dict[str, Callable[[], None]] = {
        "peer: one by one": lambda: plain(clip, encode, items, 1),
        f"peer: batches of {PLAIN_BATCH}": lambda: plain(clip, encode, items, PLAIN_BATCH),
        "store, no worker": lambda: extract(clip, items, 0),
        f"store, {WORKERS} workers": lambda: extract(clip, items, WORKERS),
    }
    seconds = medians(list(ways.values()), rounds)
    rows = [(way, spent, len(items) / spent, seconds[0] / spent) for way, spent in zip(ways, seconds, strict=True)]
    title = f"{name}: {len(items)} pictures, {torch.get_num_threads()} threads"
    print_table(title, ("way", "seconds", "images/s", "x peer"), rows)
    return seconds[0] / seconds[-1]


def second_run(items: Sequence[Item], folder: Path) -> tuple[float, float]:
    """Seconds of the first and of the second run of `mini` over `items`, the model being loaded."""
    clip = load("mini")
    [first] = medians([lambda: ImageFeatureStore(clip, folder, workers=WORKERS).load(items)], 1)
    [second] = medians([lambda: ImageFeatureStore(clip, folder, workers=WORKERS).load(items)], 3)
    print_table(
        "mini: all pictures",
        ("run", "seconds", "images"),
        [("first", first, len(items)), ("second", second, len(items))],
    )
    return first, second


def main() -> None:
    options = arguments(__doc__ or "")
    with tempfile.TemporaryDirectory() as folder:
        items, source = save_pictures(options.data_root, 64 if options.quick else ALL_PICTURES, Path(folder))
        print(f"{len(items)} {source}")
        mini = compare("mini", items[: 48 if options.quick else 256], options.rounds)
        vit = compare("ViT-B-16-quickgelu", items[: 8 if options.quick else 32], options.rounds)
        memory = peak_memory(extract_alone, "mini", items[: 48 if options.quick else 1024])
        first, second = second_run(items, Path(folder) / "store")
    print(f"\npeak memory of an extraction with mini: {memory:.0f} MB")
    print_result(mini_ratio=mini, vit_ratio=vit, first_seconds=first, second_seconds=second, peak_mb=memory)


if __name__ == "__main__":
    main()
