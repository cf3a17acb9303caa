"""Training of what `mini` learns: contrastive, on pictures with captions, half of the batches of one look only.

`make.py` runs it on all names; `choose.py` without the held-out ones, to choose by them.
Shape legend as in `ipo.clip.adapter`.
"""

from __future__ import annotations

import json
import math
import random
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from open_clip import IMAGENET_CLASSNAMES
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from ipo.clip.adapter import ImageAdapter, TextAdapter, new_sides
from ipo.clip.conse import TEMPERATURE, TOP_LABELS
from mini_training.pictures import DOMAINS

BATCH = 384
LEARNING_RATE, WEIGHT_DECAY, WARM_UP = 1e-3, 0.02, 100
ONE_LOOK = 0.5
"""Share of batches whose pictures all have one look: there only the object tells pictures apart."""
PLAIN = 0.3
"""Share of captions that say nothing of the look."""
NEAR = 0.8
"""Names this alike (cosine) with a fitting look are not held against a picture."""
PSEUDO_PHOTOS = 4
"""Pseudo-photographs of each ImageNet class."""
SHARES = {
    "sketch": 0.27, "clip": 0.17, "photo": 0.22, "painting": 0.13, "render": 0.06, "gray": 0.05, "blurry": 0.03,
    "silhouette": 0.07,
}  # fmt: skip
"""How often each look is seen."""
ALIKE = {"sketch": ("sketch", "gray"), "gray": ("gray", "sketch"), "render": ("render", "clip")}
"""Looks whose words fit each other's pictures; all others fit their own alone."""
ANY = "any"
LABELS = [name.lower() for name in IMAGENET_CLASSNAMES]


def fitting(look: str) -> tuple[str, ...]:
    """The looks whose words fit a picture of this one."""
    return ALIKE.get(look, (look,))


def is_held_out(name: str) -> bool:
    """Whether a name is kept back for choosing: 15% of all, by the last word, so that kin stay together."""
    return zlib.crc32(("held" + name.split()[-1].rstrip("s")).encode()) % 100 < 15


@dataclass(frozen=True)
class Seen:
    """Pictures as the network sees them, with their look and name: tensors (N, ...)."""

    pooled: Tensor
    style: Tensor
    conse: Tensor
    looks: tuple[str, ...]
    names: tuple[str, ...]

    def take(self, rows: Sequence[int]) -> Seen:
        """Some of them."""
        index = torch.tensor(rows)
        looks, names = tuple(self.looks[row] for row in rows), tuple(self.names[row] for row in rows)
        return Seen(self.pooled[index], self.style[index], self.conse[index], looks, names)

    def __add__(self, other: Seen) -> Seen:
        parts = [torch.cat([a, b]) for a, b in zip(self.tensors(), other.tensors(), strict=True)]
        return Seen(parts[0], parts[1], parts[2], self.looks + other.looks, self.names + other.names)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """What the image side is given."""
        return self.pooled, self.style, self.conse


@dataclass(frozen=True)
class Material:
    """All that training reads: pictures, captions by name and look, and the vectors of the ImageNet names."""

    pictures: Seen
    texts: Tensor
    bank: dict[tuple[str, str], list[int]]
    labels: Tensor
    mean: Tensor
    classifier: tuple[Tensor, Tensor]

    def conse(self, logits: Tensor) -> Tensor:
        """ConSE features (N, W) of logits (N, 1000)."""
        return conse(logits, self.labels)


def conse(logits: Tensor, labels: Tensor) -> Tensor:
    """Probability-weighted mean of the vectors (1000, W) of the most probable labels."""
    top = (logits.float() / TEMPERATURE).softmax(dim=-1).topk(TOP_LABELS, dim=-1)
    return normalize(torch.einsum("bk,bkd->bd", top.values, labels[top.indices]), dim=-1)


def read_material(folder: Path, classifier: nn.Module) -> Material:
    """What `features.py` and `captions.py` left in `folder`."""
    captions = load_file(folder / "captions.safetensors")
    rows = json.loads((folder / "captions.json").read_text())["rows"]
    bank: dict[tuple[str, str], list[int]] = {}
    for index, (name, look) in enumerate(rows):
        bank.setdefault((name, look), []).append(index)
    mean = captions["labels"].mean(dim=0)
    labels = normalize(captions["labels"] - mean, dim=-1)
    parts = [load_file(path) for path in sorted(folder.glob("pictures*.safetensors"))]
    facts = [row for path in sorted(folder.glob("pictures*.json")) for row in json.loads(path.read_text())]
    whole = {key: torch.cat([part[key] for part in parts]).float() for key in parts[0]}
    looks, names = tuple(row[1] for row in facts), tuple(row[2] for row in facts)
    pictures = Seen(whole["pooled"], whole["style"], conse(whole["logits"], labels), looks, names)
    weight, bias = classifier.get_parameter("weight").detach(), classifier.get_parameter("bias").detach()
    texts = normalize(captions["texts"].float() - mean, dim=-1)
    return Material(pictures, texts, bank, labels, mean, (weight.float(), bias.float()))


def pseudo_photos(material: Material, each: int, seed: int) -> Seen:
    """Photographs of every ImageNet class in feature space: a real one's pooled features, pushed up the classifier's
    gradient until it finds the class as probable as drawn from 0.35 to 0.95. Their style is that of the real one."""
    generator = torch.Generator().manual_seed(seed)
    (weight, bias), pictures = material.classifier, material.pictures
    photos = torch.tensor([row for row, look in enumerate(pictures.looks) if look == "photo"])
    classes = torch.arange(len(weight)).repeat(each)
    drawn = photos[torch.randint(len(photos), (len(classes),), generator=generator)]
    features, wanted = pictures.pooled[drawn], 0.35 + 0.6 * torch.rand(len(classes), generator=generator)
    for _ in range(60):
        shares = (features @ weight.T + bias).softmax(dim=-1)
        unsure = (shares.gather(1, classes[:, None])[:, 0] < wanted).float()[:, None]
        if not unsure.any():
            break
        gradient = weight[classes] - shares @ weight
        step = 0.05 * features.norm(dim=1, keepdim=True) / gradient.norm(dim=1, keepdim=True)
        features = (features + unsure * gradient * step).clamp(min=0)
    names = tuple(LABELS[index] for index in classes.tolist())
    logits = features @ weight.T + bias
    return Seen(features, pictures.style[drawn], material.conse(logits), ("photo",) * len(names), names)


@dataclass(frozen=True)
class Shape:
    """Sizes of the nets, and how long they are trained."""

    experts: int = 4
    plain: int = 256
    expert: int = 64
    hidden: int = 1024
    gate: int = 64
    steps: int = 800


class Batches:
    """Draws pictures with captions: one that fits, and one that names the same thing in another look."""

    def __init__(self, material: Material, pictures: Seen, seed: int) -> None:
        self._bank, self._pictures = material.bank, pictures
        self._random, self._draws = random.Random(seed), torch.Generator().manual_seed(seed)
        self._rows = {look: [i for i, own in enumerate(pictures.looks) if own == look] for look in SHARES}
        count = Counter(zip(pictures.names, pictures.looks, strict=True))
        self._weights = {
            look: torch.tensor([count[pictures.names[row], look] ** -0.5 for row in rows])
            for look, rows in self._rows.items()
        }

    def next(self) -> tuple[list[int], list[int], list[str], list[str]]:
        """Rows of pictures, then of captions (twice as many: fitting, then contrary), their names and their looks."""
        rnd = self._random
        if rnd.random() < ONE_LOOK:
            rows = self._pick(rnd.choices(list(SHARES), list(SHARES.values()))[0], BATCH)
        else:
            rows = [row for look, share in SHARES.items() for row in self._pick(look, max(1, int(BATCH * share)))]
        looks = [self._said(self._pictures.looks[row]) for row in rows]
        looks += [rnd.choice([o for o in DOMAINS if o not in fitting(self._pictures.looks[row])]) for row in rows]
        names = [self._pictures.names[row] for row in rows] * 2
        return rows, [rnd.choice(self._bank[pair]) for pair in zip(names, looks, strict=True)], names, looks

    def _pick(self, look: str, count: int) -> list[int]:
        rows, weights = self._rows[look], self._weights[look]
        drawn = torch.multinomial(weights, count, replacement=count > len(rows), generator=self._draws)
        return [rows[index] for index in drawn.tolist()]

    def _said(self, look: str) -> str:
        if self._random.random() < PLAIN:
            return ANY
        return look if self._random.random() < 0.85 else self._random.choice(fitting(look))


def train(material: Material, seed: int, shape: Shape, *, everything: bool) -> tuple[ImageAdapter, TextAdapter]:
    """Both sides, trained on all names, or on those that are not held out. The same seed gives the same weights."""
    torch.manual_seed(seed)
    pictures = material.pictures.take([row for row, name in enumerate(material.pictures.names) if name])
    pictures = pictures + pseudo_photos(material, PSEUDO_PHOTOS, seed)
    if not everything:
        pictures = pictures.take([row for row, name in enumerate(pictures.names) if not is_held_out(name)])
    image, text = untrained(pictures, material, shape)
    scale = nn.Parameter(torch.tensor(2.7))
    parameters = [*image.parameters(), *text.parameters()]
    groups = [{"params": parameters, "weight_decay": WEIGHT_DECAY}, {"params": [scale], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    masks, batches = Masks(material, pictures), Batches(material, pictures, seed)
    image.train(), text.train()
    for step in range(shape.steps):
        for group in optimizer.param_groups:
            decay = 0.5 * (1 + math.cos(math.pi * step / shape.steps)) + 0.01
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / WARM_UP) * decay
        rows, captions, names, looks = batches.next()
        chosen = pictures.take(rows)
        logits = scale.exp().clamp(max=50) * image(*chosen.tensors()) @ text(material.texts[captions]).T
        logits = logits.masked_fill(masks.alike(chosen, names, looks), -1e4)
        target = torch.arange(len(rows))
        loss = cross_entropy(logits, target) + 0.5 * cross_entropy(logits[:, : len(rows)].T, target)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return image.eval(), text.eval()


def untrained(pictures: Seen, material: Material, shape: Shape) -> tuple[ImageAdapter, TextAdapter]:
    """Untrained nets; the image side knows the mean and the deviation of its inputs."""
    seen = torch.cat([pictures.pooled, pictures.style], dim=1)
    image, text = new_sides(**sizes_of(material, shape))
    image.get_buffer("mean").copy_(seen.mean(dim=0))
    image.get_buffer("deviation").copy_(seen.std(dim=0) + 1e-3)
    return image, text


def sizes_of(material: Material, shape: Shape) -> dict[str, int]:
    """What it takes to build the nets again."""
    sizes = {"pooled": material.pictures.pooled.shape[1], "style": material.pictures.style.shape[1]}
    sizes |= {"text": material.texts.shape[1], "plain": shape.plain, "expert": shape.expert}
    return sizes | {"experts": shape.experts, "hidden": shape.hidden, "gate": shape.gate}


class Masks:
    """Which captions of a batch say of a picture what is true as well, and so are no counter-examples."""

    def __init__(self, material: Material, pictures: Seen) -> None:
        self._place = {name: index for index, name in enumerate(sorted(set(pictures.names)))}
        plain = [material.texts[material.bank[name, ANY]].mean(dim=0) for name in self._place]
        self._names = normalize(torch.stack(plain), dim=-1)

    def alike(self, pictures: Seen, names: Sequence[str], looks: Sequence[str]) -> Tensor:
        """Mask (B, N): near names in words that fit, without each picture's own caption."""
        mine = self._names[[self._place[name] for name in pictures.names]]
        near = mine @ self._names[[self._place[name] for name in names]].T > NEAR
        table = {look: [other == ANY or other in fitting(look) for other in looks] for look in set(pictures.looks)}
        mask = near & torch.tensor([table[look] for look in pictures.looks])
        own = torch.arange(len(pictures.looks))
        mask[own, own] = False
        return mask
