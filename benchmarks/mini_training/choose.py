"""Choosing sizes and seeds of `mini` on held-out names: expected 10-way accuracy of each look, by wording."""

from __future__ import annotations

import sys
from math import lgamma
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ipo.clip.adapter import Adapter
from ipo.clip.mini import EFFICIENTNET_PACKAGE, EFFICIENTNET_WEIGHTS, MINILM_PACKAGE, load_efficientnet, package_file
from ipo.clip.minilm import load_minilm
from mini_training.train import Material, Seen, Shape, is_held_out, pseudo_photos, read_material, train

WORDS = {
    "bare": "{}", "photo": "a photo of a {}.", "sketch": "a sketch of a {}.", "drawing": "a drawing of a {}.",
    "pencil": "a pencil sketch of a {}.", "cartoon": "a cartoon of a {}.", "clip art": "a clip art of a {}.",
    "painting": "a painting of a {}.", "silhouette": "a silhouette of a {}.", "rendering": "a rendering of a {}.",
}  # fmt: skip
MATCHING = {
    "photo": ("photo",), "sketch": ("sketch", "drawing", "pencil"), "clip": ("cartoon", "clip art"),
    "render": ("rendering", "cartoon"), "painting": ("painting",), "silhouette": ("silhouette",),
    "gray": ("drawing", "sketch"),
}  # fmt: skip
WAYS = 10


def expected_accuracy(scores: Tensor, labels: Tensor) -> float:
    """Accuracy (0..100) among 10 names, the true one and nine drawn from the rest, in expectation over the draws."""
    better = (scores > scores.gather(1, labels[:, None])).sum(dim=1).double().numpy()
    others = scores.shape[1] - 1
    worse = others - better

    def log_choices(count: float) -> float:
        return lgamma(count + 1) - lgamma(WAYS) - lgamma(count - WAYS + 2)

    chances = [np.exp(log_choices(w) - log_choices(others)) if w >= WAYS - 1 else 0.0 for w in worse]
    return 100 * float(np.mean(chances))


class HeldOutNames:
    """Pictures of names that training has not seen, and the texts of those names."""

    def __init__(self, material: Material) -> None:
        pictures = material.pictures.take([i for i, name in enumerate(material.pictures.names) if name])
        every = pictures + pseudo_photos(material, 2, 99)
        held = every.take([row for row, name in enumerate(every.names) if is_held_out(name)])
        self.sets: dict[str, Seen] = {
            look: held.take([row for row, own in enumerate(held.looks) if own == look]) for look in MATCHING
        }
        self.names = sorted(set(held.names))
        folder = package_file(MINILM_PACKAGE, "model")
        encoder = load_minilm(folder, device=torch.device("cpu"), precision="float32", memory_mb=64)
        self.texts = {
            key: normalize(encoder.encode_texts([words.format(name) for name in self.names]) - material.mean, dim=-1)
            for key, words in WORDS.items()
        }

    @torch.no_grad()
    def accuracy(self, adapter: Adapter | None) -> dict[tuple[str, str], float]:
        """By look and wording; without an adapter, that of ConSE alone."""
        found = {}
        texts = {key: text if adapter is None else adapter.text(text) for key, text in self.texts.items()}
        for look, seen in self.sets.items():
            here = sorted(set(seen.names))
            columns = [self.names.index(name) for name in here]
            labels = torch.tensor([here.index(name) for name in seen.names])
            image = seen.conse if adapter is None else adapter.image(*seen.tensors())
            for key, text in texts.items():
                found[look, key] = expected_accuracy(image @ text[columns].T, labels)
        return found

    @torch.no_grad()
    def best_scale(self, adapter: Adapter) -> float:
        """The factor on the cosine with the least cross-entropy over all held-out drawings in their own words."""
        scales = torch.arange(5.0, 60.0, 1.0)
        losses = torch.zeros(len(scales))
        for look, keys in MATCHING.items():
            seen = self.sets[look]
            here = sorted(set(seen.names))
            columns, labels = [self.names.index(name) for name in here], [here.index(name) for name in seen.names]
            if look != "photo":  # pseudo-photographs are found without fail
                cosines = adapter.image(*seen.tensors()) @ adapter.text(self.texts[keys[0]][columns]).T
                losses += torch.stack([cross_entropy(scale * cosines, torch.tensor(labels)) for scale in scales])
        return float(scales[losses.argmin()])


def summary(found: dict[tuple[str, str], float]) -> str:
    """Accuracy in matching words a look, their mean, and what they are worth over "a photo of a" and the bare name."""
    matched = {look: float(np.mean([found[look, key] for key in keys])) for look, keys in MATCHING.items()}
    drawn = [look for look in MATCHING if look != "photo"]
    gain = {key: float(np.mean([matched[look] - found[look, key] for look in drawn])) for key in ("photo", "bare")}
    photo = found["photo", "photo"] - found["photo", "sketch"]
    parts = " ".join(f"{look} {value:.1f}" for look, value in matched.items())
    return (
        f"{parts} | mean {np.mean(list(matched.values())):.2f} | over photo {gain['photo']:+.2f}, "
        f"bare {gain['bare']:+.2f} | photos: photo over sketch {photo:+.1f}"
    )


def main(folder: Path, seeds: int) -> None:
    """A line for ConSE alone, for each seed, and for all seeds together by the share of the experts."""
    network = load_efficientnet(package_file(EFFICIENTNET_PACKAGE, EFFICIENTNET_WEIGHTS))
    material = read_material(folder, network.get_submodule("classifier"))
    held = HeldOutNames(material)
    print("ConSE alone:", summary(held.accuracy(None)), flush=True)
    sides = []
    for seed in range(seeds):
        sides.append(train(material, seed, Shape(), everything=False))
        for weight in (1.0, 1.5, 2.0):
            print(f"seed {seed}, weight {weight}:", summary(held.accuracy(Adapter(sides[-1:], weight))), flush=True)
    for share in (0.5, 0.6, 0.67, 0.75, 0.85) if seeds > 1 else ():
        together = Adapter(sides, 1.0, share)
        found = f"{summary(held.accuracy(together))} | scale {held.best_scale(together):g}"
        print(f"together, weight 1, experts' share {share}:", found, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
