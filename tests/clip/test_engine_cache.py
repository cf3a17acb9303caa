"""Remembered text features: nothing is encoded twice, nothing is mixed up, nothing is half stored."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ipo.clip.text.cache import TextCache, TextStore
from ipo.errors import RunError
from tests.clip.tiny_openclip import TEXTS, tiny_openclip

CPU = torch.device("cpu")


class Encoder:
    """Counts what it is asked for; the feature of a text is its length and its first letter."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts: list[str]) -> Tensor:
        self.calls.append(texts)
        return torch.tensor([[len(text) / 3, ord(text[0]) / 7] for text in texts])


def test_texts_are_encoded_once_and_come_back_in_order() -> None:
    encode, cache = Encoder(), TextCache(capacity=10)
    cache.fetch(["b", "aa", "b"], encode)
    features = cache.fetch(["aa", "ccc", "b"], encode)
    assert encode.calls == [["b", "aa"], ["ccc"]]
    assert torch.equal(features, Encoder()(["aa", "ccc", "b"]))


def test_the_texts_used_longest_ago_are_forgotten() -> None:
    encode, cache = Encoder(), TextCache(capacity=2)
    for texts in (["a"], ["b"], ["a"], ["c"], ["a"], ["b"]):
        cache.fetch(texts, encode)
    assert encode.calls == [["a"], ["b"], ["c"], ["b"]]


def test_a_call_may_hold_more_texts_than_are_kept() -> None:
    texts = ["a", "b", "c", "d"]
    features = TextCache(capacity=2).fetch(texts, Encoder())
    assert torch.equal(features, Encoder()(texts))


def test_another_process_finds_the_same_bits_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "texts.sqlite"
    texts = [f"text {number}" for number in range(1200)]
    first = TextCache(9, TextStore(path, "model", 2, CPU)).fetch(texts, Encoder())
    encode = Encoder()
    second = TextCache(9, TextStore(path, "model", 2, CPU)).fetch([*texts[::-1], "new"], encode)
    assert encode.calls == [["new"]]
    assert torch.equal(second[:-1], first.flip(0))


def test_models_are_not_mixed(tmp_path: Path) -> None:
    path = tmp_path / "texts.sqlite"
    for model in ("one", "two"):
        encode = Encoder()
        TextCache(9, TextStore(path, model, 2, CPU)).fetch(["a"], encode)
        assert encode.calls == [["a"]]


def test_a_call_that_fails_stores_nothing(tmp_path: Path) -> None:
    store = TextStore(tmp_path / "texts.sqlite", "model", 2, CPU)
    with pytest.raises(ValueError, match="zip"):
        store.save(["a", "b"], torch.zeros(1, 2))

    def fail(texts: list[str]) -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TextCache(9, store).fetch(["a", "b"], fail)
    assert store.load(["a", "b"]) == {}


def test_a_file_that_is_no_database_is_an_error_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "texts.sqlite"
    path.write_text("not a database, but long enough to be taken for the header of one" * 20)
    with pytest.raises(RunError, match=r"texts\.sqlite"):
        TextStore(path, "model", 2, CPU)


def test_features_of_another_width_are_an_error_with_the_path(tmp_path: Path) -> None:
    path = tmp_path / "texts.sqlite"
    TextStore(path, "model", 3, CPU).save(["a"], torch.zeros(1, 3))
    with pytest.raises(RunError, match=r"width 2.*texts\.sqlite.*Delete it"):
        TextStore(path, "model", 2, CPU).load(["a"])


def test_model_with_a_cache_file_gives_the_same_bits_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "texts.sqlite"
    first, again = tiny_openclip(), tiny_openclip()
    first.use_text_cache(path)
    again.use_text_cache(path)
    expected = first.encode_texts(TEXTS)
    # Encoded one by one they round differently; from the file they do not.
    features = torch.cat([again.encode_texts([text]) for text in TEXTS])
    assert torch.equal(features, expected)
