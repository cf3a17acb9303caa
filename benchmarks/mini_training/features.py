"""What EfficientNet-Lite0 sees in the training pictures, kept in files: logits, pooled features, style statistics."""

from __future__ import annotations

import json
import random
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from ipo.clip.adapter import see
from ipo.clip.mini import EFFICIENTNET_PACKAGE, EFFICIENTNET_WEIGHTS, fold_batch_norms, load_efficientnet, package_file
from mini_training.pictures import SIZE, looks, opened
from mini_training.sources import pictures, use_wordnet

BATCH = 4


def network() -> nn.Module:
    """EfficientNet-Lite0 as `mini` runs it."""
    plain = load_efficientnet(package_file(EFFICIENTNET_PACKAGE, EFFICIENTNET_WEIGHTS))
    return fold_batch_norms(plain).eval().to(memory_format=torch.channels_last)


def pixels(image: Image.Image) -> Tensor:
    """A picture as the network is given it: (3, 224, 224) from -1 to 1."""
    image = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(image, np.float32).copy() / 127.5 - 1).permute(2, 0, 1)


@torch.no_grad()
def main(folder: Path, out: Path, part: int, parts: int) -> None:
    """Make and see every `parts`-th picture of the packages in `folder`, beginning with number `part`."""
    torch.set_num_threads(1)
    use_wordnet(folder)
    every = pictures(folder)
    photos = [opened(picture) for picture in every if picture.kind == "photo"]
    net, facts, batch, found = network(), list[tuple[str, str, str]](), list[Tensor](), list[tuple[Tensor, ...]]()
    for number, picture in enumerate(every):
        if number % parts != part:
            continue
        rng = random.Random(zlib.crc32(f"{picture.source}/{picture.key}".encode()))
        try:
            made = list(looks(picture, photos, rng))
        except (ValueError, OSError, Image.DecompressionBombError) as error:
            print(f"left out: {picture.source} {picture.key}: {str(error)[:100]}", flush=True)
            continue
        facts += [(picture.source, look, picture.name) for look, _ in made]
        batch += [pixels(image) for _, image in made]
        while len(batch) >= BATCH:
            piece, batch = torch.stack(batch[:BATCH]), batch[BATCH:]
            found.append(see(net, piece.contiguous(memory_format=torch.channels_last)))
        if number % 500 == part:
            print(f"{number} of {len(every)} pictures, {len(facts)} looks", flush=True)
    if batch:
        found.append(see(net, torch.stack(batch)))
    logits, pooled, style = (torch.cat(piece).half().contiguous() for piece in zip(*found, strict=True))
    save_file({"logits": logits, "pooled": pooled, "style": style}, out / f"pictures{part}.safetensors")
    (out / f"pictures{part}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
