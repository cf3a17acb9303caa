"""The text engine against `encode_text`: same features, same gradients, and no more work than the token trie needs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.tokenizer import SimpleTokenizer
from torch.utils.flop_counter import FlopCounterMode

from ipo.clip.text.contexts import context_sequences
from ipo.clip.text.engine import TextEngine
from ipo.clip.text.exactness import choose_text_path
from ipo.clip.text.packing import packs
from ipo.clip.text.plain import PlainText
from ipo.clip.text.tokens import Tokens
from ipo.clip.text.tower import read_tower
from ipo.errors import ModelError
from tests.clip.tiny_openclip import DIM, LAYOUTS, TEXT, TEXTS, plain_path, tiny_module, tokens_of

END = 49407


def engine_of(module: Any, dtype: torch.dtype | None = None) -> TextEngine:
    tower = read_tower(module, dtype or module.logit_scale.dtype)
    assert tower is not None
    return TextEngine(tower, memory_mb=64)


def sequences_of(module: Any, texts: list[str] = TEXTS) -> list[list[int]]:
    return [tokens_of(module).sequence(text) for text in texts]


@pytest.mark.parametrize(("layout", "options"), LAYOUTS)
def test_features_equal_encode_text(layout: type, options: dict[str, Any]) -> None:
    module = tiny_module(layout, **options)
    sequences = sequences_of(module)
    features, expected = engine_of(module).encode(sequences), plain_path(module).encode(sequences)
    assert (features - expected).abs().max() <= 1e-5
    # The bound means something only where different texts lie much further apart than it.
    assert (expected[0] - expected[1]).abs().max() > 1e-2


def test_features_equal_encode_text_in_double_precision() -> None:
    module = tiny_module(quick_gelu=True, dtype=torch.float64)
    sequences = sequences_of(module)
    difference = engine_of(module).encode(sequences) - plain_path(module).encode(sequences)
    assert difference.abs().max() <= 1e-12


def test_text_is_read_at_its_first_end_token() -> None:
    module = tiny_module()
    sequences = [[49406, 320, END, 530, END], [49406, 320, END]]
    features = engine_of(module).encode(sequences)
    assert torch.equal(features[0], features[1])
    assert (features - plain_path(module).encode(sequences)).abs().max() <= 1e-5


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=12), st.integers(1, 12))
def test_any_sequences_in_packs_of_any_size(words: list[list[int]], max_rows: int) -> None:
    module = tiny_module()
    engine = engine_of(module)
    sequences = [[49406, *ids, END] for ids in words]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "max_rows", lambda with_grad: max_rows)
        features = engine.encode(sequences)
    assert (features - plain_path(module).encode(sequences)).abs().max() <= 1e-5


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=12, unique_by=tuple))
def test_one_pack_holds_each_distinct_prefix_once(sequences: list[list[int]]) -> None:
    (pack,) = packs(sequences, max_rows=1000)
    prefixes = {tuple(ids[:length]) for ids in sequences for length in range(1, len(ids) + 1)}
    assert len(pack.ids) == len(prefixes)
    assert pack.ids[pack.ends].tolist() == [sequences[member][-1] for member in pack.members]
    assert sorted(pack.members) == list(range(len(sequences)))


@pytest.mark.parametrize("max_rows", [1, 7, 20])
def test_packs_stay_within_their_rows(max_rows: int) -> None:
    sequences = sorted(set(map(tuple, sequences_of(tiny_module()))))
    for pack in packs(sequences, max_rows):
        assert len(pack.ids) <= max_rows or len(pack.members) == 1


def test_linear_layers_see_each_trie_node_once_and_end_tokens_alone_in_the_last_block() -> None:
    module = tiny_module()
    sequences = [list(ids) for ids in sorted(set(map(tuple, sequences_of(module))))]
    rows = len({tuple(ids[:length]) for ids in sequences for length in range(1, len(ids) + 1)})
    texts, width, blocks = len(sequences), TEXT["width"], TEXT["layers"]
    engine = engine_of(module)
    with FlopCounterMode(display=False) as counter:
        engine.encode(sequences)
    counted = counter.get_flop_counts()["Global"]
    linear = sum(counted.get(op, 0) for op in (torch.ops.aten.addmm, torch.ops.aten.mm))
    full = (blocks - 1) * rows * 12 * width**2
    last = rows * 2 * width**2 + texts * 10 * width**2
    assert linear == 2 * (full + last + texts * width * DIM)


@pytest.mark.parametrize(("images", "own", "after"), [(1, 1, 0), (1, 2, 0), (3, 1, 0), (2, 2, 0), (1, 1, 2), (2, 2, 3)])
@pytest.mark.parametrize("max_rows", [1000, 1])
def test_gradients_equal_those_of_encode_text(
    images: int, own: int, after: int, max_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tiny_module(quick_gelu=True, dtype=torch.float64)
    engine = engine_of(module)
    monkeypatch.setattr(engine, "max_rows", lambda with_grad: max_rows)
    contexts = [
        torch.randn(images, own, count, TEXT["width"], dtype=torch.float64, requires_grad=True) for count in (4, after)
    ]
    sequences = context_sequences(tokens_of(module), ["cat", "dog house"], contexts[0], contexts[1], ".")
    weights = torch.randn(2 * images, DIM, dtype=torch.float64)
    results = []
    for path in (engine, plain_path(module)):
        features = path.encode(sequences, torch.cat([context.flatten(0, 2) for context in contexts]))
        loss = (features * weights).sum()
        results.append((features, *torch.autograd.grad(loss, contexts)))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-11)
    assert results[0][1].abs().max() > 1e-3


def test_bfloat16_gives_float32_features_near_the_exact_ones() -> None:
    module = tiny_module()
    sequences = sequences_of(module)
    low = engine_of(module, dtype=torch.bfloat16).encode(sequences)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.norm(dim=1), torch.ones(len(sequences)))
    difference = (low - plain_path(module).encode(sequences)).abs().max()
    assert 0 < difference < 0.05


PLAIN = [
    (CustomTextCLIP, {"no_causal_mask": True, "pool_type": "last"}),
    (CustomTextCLIP, {"pool_type": "last"}),
    (CLIP, {"qk_norm": True}),
    (CoCa, {"context_length": 76, "embed_cls": True, "output_tokens": True}),
]


@pytest.mark.parametrize(("layout", "options"), PLAIN)
def test_towers_of_another_shape_take_the_plain_path(layout: type, options: dict[str, Any]) -> None:
    module = tiny_module(layout, **options)
    tokens = tokens_of(module)
    assert isinstance(choose_text_path(module, tokens, torch.float32, 64), PlainText)
    # Their contexts carry gradients all the same, and those of the words' own embeddings change nothing.
    words = getattr(module, "text", module).token_embedding.weight[list(tokens.words("a photo of a"))]
    before = words[None, None].clone().requires_grad_(True)
    path = plain_path(module)
    sequences = context_sequences(tokens, ["cat"], before, before[:, :, :0], ".")
    features = path.encode(sequences, before.flatten(0, 2))
    expected = path.encode([tokens.sequence("a photo of a cat.")])
    torch.testing.assert_close(features, expected)
    features.sum().backward()
    assert before.grad is not None
    assert before.grad.abs().max() > 0


@pytest.mark.parametrize("layout", [CLIP, CustomTextCLIP])
def test_causal_towers_take_the_engine(layout: type) -> None:
    module = tiny_module(layout)
    assert isinstance(choose_text_path(module, tokens_of(module), torch.bfloat16, 64), TextEngine)


def test_engine_that_disagrees_with_encode_text_is_an_error() -> None:
    module = tiny_module()
    module.ln_final.register_forward_hook(lambda _module, _inputs, output: output + 0.01 * output.roll(1, dims=-1))
    with pytest.raises(ModelError, match="differs from the model's encode_text"):
        choose_text_path(module, tokens_of(module), torch.float32, 64)


def test_not_a_number_is_an_error_too() -> None:
    module = tiny_module()
    module.ln_final.weight.data[0] = float("nan")
    with pytest.raises(ModelError, match="nan"):
        choose_text_path(module, tokens_of(module), torch.float32, 64)


def test_token_ids_that_differ_from_the_models_own_are_an_error() -> None:
    class Stripping(SimpleTokenizer):  # type: ignore[misc]
        def __call__(self, texts: Any, context_length: int | None = None) -> torch.Tensor:
            return super().__call__([text.replace("-", "") for text in texts], context_length)

    module = tiny_module()
    assert choose_text_path(module, Tokens(SimpleTokenizer(), 77), torch.float32, 64)
    with pytest.raises(ModelError, match=r"token ids of .*T-shirt.* differ"):
        choose_text_path(module, Tokens(Stripping(), 77), torch.float32, 64)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_features_without_waiting_for_the_device() -> None:
    module = tiny_module()
    sequences = sequences_of(module)
    expected = plain_path(module).encode(sequences)
    engine = engine_of(module.to("cuda"))
    engine.encode(sequences)
    torch.cuda.set_sync_debug_mode("error")
    try:
        features = engine.encode(sequences)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (features.cpu() - expected).abs().max() <= 1e-5
