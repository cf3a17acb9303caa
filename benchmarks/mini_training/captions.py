"""The captions: every name in words of every look, encoded once by the text side of `mini`."""

from __future__ import annotations

import json
import random
import sys
import tomllib
from pathlib import Path

import torch
from open_clip import IMAGENET_CLASSNAMES
from safetensors.torch import save_file

from ipo.clip.mini import MINILM_PACKAGE, package_file
from ipo.clip.minilm import load_minilm
from mini_training.sources import pictures, use_wordnet

STOPS = 0.4
"""Share of captions that end with a stop."""


def main(folder: Path, out: Path) -> None:
    """Write `captions.json` (name and look of each text) and their embeddings, with those of the ImageNet names."""
    use_wordnet(folder)
    words = tomllib.loads(Path(__file__).with_name("captions.toml").read_text(encoding="utf-8"))
    counts = words.pop("drawn_at_random")
    names = {picture.name for picture in pictures(folder)} - {""} | {name.lower() for name in IMAGENET_CLASSNAMES}
    rng, rows, texts = random.Random(0), list[tuple[str, str]](), list[str]()
    for name in sorted(names):
        for look, count in counts.items():
            for wording in rng.sample(words[look], count):
                rows.append((name, look))
                texts.append(wording.format(name) + ("." if rng.random() < STOPS else ""))
    model = package_file(MINILM_PACKAGE, "model")
    encoder = load_minilm(model, device=torch.device("cpu"), precision="float32", memory_mb=64)
    parts = [encoder.encode_texts(texts[start : start + 4000]).half() for start in range(0, len(texts), 4000)]
    labels = encoder.encode_texts(list(IMAGENET_CLASSNAMES))
    save_file({"texts": torch.cat(parts), "labels": labels}, out / "captions.safetensors")
    (out / "captions.json").write_text(json.dumps({"rows": rows, "texts": texts}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
