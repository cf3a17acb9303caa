"""Seeds made from the seed of a run and from what they are for; they are the same in every process."""

from __future__ import annotations

import hashlib


def step_seed(seed: int, step: int, ask: int = 0) -> int:
    """The seed of a step of a search, or of a question of it."""
    return _number(f"{seed}:{step}:{ask}" if ask else f"{seed}:{step}")


def fit_seed(seed: int, *words: object) -> int:
    """The seed of one purpose of a fit, such as an epoch's order of images."""
    return _number(repr((seed, *words)))


def _number(text: str) -> int:
    """A number of 32 bits out of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
