"""Features before they are brought to unit length: what they are, and that no cache takes one for another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP
from torch.nn.functional import normalize

from tests.clip.tiny_openclip import LAYOUTS, TEXTS, TOKENIZER, tiny_module, tiny_openclip

COCA = {"context_length": 76, "embed_cls": True, "output_tokens": True}
NAMES = ["cat", "dog house", "accordion"]


@pytest.mark.parametrize(("layout", "options"), [*LAYOUTS, (CLIP, {"qk_norm": True}), (CoCa, COCA)])
def test_raw_texts_are_those_of_encode_text_and_normalised_the_unit_ones(layout, options):
    module = tiny_module(layout, **options)
    clip = tiny_openclip(module)
    raw = clip.encode_texts(TEXTS, unit=False)
    length = clip.context_length
    torch.testing.assert_close(raw, module.encode_text(TOKENIZER(TEXTS, length), normalize=False), rtol=0, atol=1e-4)
    assert (raw.norm(dim=1) - 1).abs().min() > 0.1
    assert torch.equal(normalize(raw, dim=-1), clip.encode_texts(TEXTS))


def test_raw_features_around_contexts_have_gradients_that_agree_with_the_unit_ones():
    clip = tiny_openclip()
    context = clip.embed_words("a photo of a")[None, None].requires_grad_()
    raw, unit = (clip.encode_embeddings(NAMES, context, unit=unit) for unit in (False, True))
    assert torch.equal(normalize(raw, dim=-1), unit)
    weights = torch.randn_like(unit)
    left = torch.autograd.grad((normalize(raw, dim=-1) * weights).sum(), context)[0]
    right = torch.autograd.grad((unit * weights).sum(), context)[0]
    assert torch.equal(left, right)
    torch.testing.assert_close(
        raw[0], clip.encode_texts([f"a photo of a {name}." for name in NAMES], unit=False), rtol=0, atol=1e-5
    )


def test_neither_kind_is_taken_for_the_other_in_memory_or_in_a_file(tmp_path: Path):
    clip = tiny_openclip()
    clip.use_text_cache(tmp_path / "texts.sqlite")
    unit, raw = clip.encode_texts(TEXTS), clip.encode_texts(TEXTS, unit=False)
    assert not torch.allclose(unit, raw)
    again = tiny_openclip()
    again.use_text_cache(tmp_path / "texts.sqlite")
    # One by one they would round differently: these come from the file.
    assert torch.equal(torch.cat([again.encode_texts([text], unit=False) for text in TEXTS]), raw)
    assert torch.equal(torch.cat([again.encode_texts([text]) for text in TEXTS]), unit)
    assert torch.equal(clip.encode_texts(TEXTS, unit=False), raw)
    assert torch.equal(clip.encode_texts(TEXTS), unit)
