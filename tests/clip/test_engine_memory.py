"""The memory bound of the text engine, against the sizes of the tensors that are really alive at once."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ipo.clip.text.engine import TextEngine
from ipo.clip.text.tower import read_tower
from tests.clip.tiny_openclip import plain_path, tiny_module

END = 49407
WIDTH = 64
MODULE = tiny_module(width=WIDTH, layers=3)


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that operations make, for as long as anything holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = operation(*args, **kwargs)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in given | self.known:
                self.add(tensor.untyped_storage())
        return result

    def add(self, storage: Any) -> None:
        self.known.add(storage._cdata)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.drop, storage._cdata, storage.nbytes())

    def drop(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def sequences_of(prefix: int, tail: int, count: int, with_grad: bool) -> list[list[int]]:
    """Texts with a shared prefix, of context vectors where there is a gradient, and tails of their own."""
    shared = [-1 - i if with_grad else 1000 + i for i in range(prefix)]
    return [[49406, *shared, *range(2000 + i * tail, 2000 + (i + 1) * tail), END] for i in range(count)]


def engine_of(memory_mb: int) -> TextEngine:
    tower = read_tower(MODULE, torch.float32)
    assert tower is not None
    return TextEngine(tower, memory_mb)


def peak_mb(engine: TextEngine, sequences: list[list[int]], with_grad: bool) -> float:
    vectors = torch.zeros(75, WIDTH, requires_grad=True) if with_grad else None
    with LiveBytes() as live, torch.set_grad_enabled(with_grad):
        features = engine.encode(sequences, vectors)
        if with_grad:
            features.sum().backward()
    return live.peak / 2**20


SHAPES = {"long prefix": (70, 1, 300), "no prefix": (0, 10, 200), "long tails": (0, 70, 40), "both": (35, 30, 60)}


@pytest.mark.parametrize("with_grad", [False, True])
@pytest.mark.parametrize(("prefix", "tail", "count"), SHAPES.values(), ids=SHAPES)
def test_what_is_alive_at_once_stays_within_the_bound(
    prefix: int, tail: int, count: int, with_grad: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = sequences_of(prefix, tail, count, with_grad)
    free = engine_of(1 << 12)
    monkeypatch.setattr(free, "max_rows", lambda with_grad: 1 << 20)
    # Without a bound they take far more, so the bound of 4 MB is one.
    assert peak_mb(free, sequences, with_grad) > 7
    assert 1 < peak_mb(engine_of(4), sequences, with_grad) <= 4


def test_packs_that_memory_divides_give_the_same_features_and_gradients() -> None:
    sequences = sequences_of(60, 2, 200, with_grad=True)
    weights = torch.randn(200, 16)
    results = []
    for path in (engine_of(4), plain_path(MODULE)):
        vectors = torch.linspace(-1, 1, 75 * WIDTH).view(75, WIDTH).requires_grad_()
        features = path.encode(sequences, vectors)
        results.append((features, *torch.autograd.grad((features * weights).sum(), vectors)))
    for ours, expected in zip(*results, strict=True):
        assert (ours - expected).norm() <= 1e-5 * expected.norm()
