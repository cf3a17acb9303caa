"""Few-shot draws and class halves, image for image those of CoOp (arXiv 2109.01134) and CoCoOp (arXiv 2203.05557)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

from ipo.data.types import ClassHalf, Dataset, Item

Half = Literal["base", "new", "all"]

VAL_SHOTS = 4
"""Most validation images a class that a draw holds."""


def draw_shots(dataset: Dataset, shots: int, seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """`shots` training images and min(shots, 4) validation images of each class, as CoOp draws them.

    All classes take part, whichever half is used afterwards; a class with fewer images gives all it has. One
    generator, seeded with `seed` (0 included), serves both draws. Raises `ValueError` if `shots` is not positive.
    An image with several labels counts for all of them: the rarest class draws first, and each class draws as many
    as it still lacks, so that every class has `shots` at least where it can, and frequent ones may have more.
    """
    if shots < 1:
        raise ValueError(f"shots must be positive, not {shots}")
    rng = random.Random(seed)
    return _draw(dataset.train, shots, rng), _draw(dataset.val, min(shots, VAL_SHOTS), rng)


def _draw(items: Sequence[Item], shots: int, rng: random.Random) -> tuple[Item, ...]:
    if any(item.labels for item in items):
        return _draw_several(items, shots, rng)
    by_label: dict[int, list[Item]] = {}
    for item in items:  # order of first appearance, which decides what the generator gives to which class
        by_label.setdefault(item.label, []).append(item)
    drawn: list[Item] = []
    for own in by_label.values():
        drawn += rng.sample(own, shots) if len(own) >= shots else own
    return tuple(drawn)


def _draw_several(items: Sequence[Item], shots: int, rng: random.Random) -> tuple[Item, ...]:
    by_label: dict[int, list[int]] = {}
    for place, item in enumerate(items):
        for label in item.classes:
            by_label.setdefault(label, []).append(place)
    drawn = set[int]()
    for _, own in sorted(by_label.items(), key=lambda pair: (len(pair[1]), pair[0])):
        left = [place for place in own if place not in drawn]
        lacking = shots - (len(own) - len(left))
        drawn.update(rng.sample(left, min(max(0, lacking), len(left))))
    return tuple(items[place] for place in sorted(drawn))


def class_half(dataset: Dataset, half: Half) -> ClassHalf:
    """Base: the first ceil(n/2) classes in label order; new: the rest; all: every class."""
    count = len(dataset.classnames)
    middle = (count + 1) // 2
    labels = {"base": range(middle), "new": range(middle, count), "all": range(count)}[half]
    return ClassHalf(tuple(dataset.classnames[label] for label in labels), tuple(labels))
