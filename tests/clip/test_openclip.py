"""OpenCLIP models behind the contract: what loads, what must not load, and what each method gives."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from PIL import Image
from safetensors.torch import save_file

from ipo.clip import sources
from ipo.clip.digest import model_hash
from ipo.clip.openclip import OpenClip, load_openclip
from ipo.clip.text.tokens import Tokens
from ipo.errors import IpoError, ModelError, PromptError
from tests.clip.tiny_openclip import DIM, TEXT, TEXTS, VISION, plain_path, tiny_module, tiny_openclip

CONFIG = {"model_cfg": {"embed_dim": DIM, "vision_cfg": VISION, "text_cfg": TEXT}}


def load(spec: str, offline: bool = True) -> OpenClip:
    return load_openclip(spec, device="cpu", precision="float32", text_memory_mb=64, offline=offline)


def saved(folder: Path, weights: bool = True) -> Path:
    (folder / "open_clip_config.json").write_text(json.dumps(CONFIG))
    if weights:
        tensors = {name: tensor.contiguous() for name, tensor in tiny_module().state_dict().items()}
        save_file(tensors, folder / "open_clip_model.safetensors")
    return folder


def test_a_saved_folder_loads_as_the_same_model(tmp_path: Path) -> None:
    clip = load(f"local-dir:{saved(tmp_path)}")
    assert torch.equal(clip.encode_texts(TEXTS), tiny_openclip().encode_texts(TEXTS))
    assert clip.fingerprint.weights == tiny_openclip().fingerprint.weights
    assert (clip.dim, clip.width, clip.context_length) == (DIM, TEXT["width"], 77)
    pixels = clip.preprocess(Image.new("RGB", (40, 50), "red"))
    assert pixels.shape == (3, 32, 32)


def test_a_folder_without_weights_is_an_error_and_never_a_random_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weights file"):
        load(f"local-dir:{saved(tmp_path, weights=False)}")


def test_a_folder_without_settings_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no open_clip_config\.json"):
        load(f"local-dir:{tmp_path / 'nowhere'}")


@pytest.mark.parametrize("change", ["cut", "other_shape"])
def test_broken_or_foreign_weights_are_an_error(tmp_path: Path, change: str) -> None:
    folder = saved(tmp_path)
    weights = folder / "open_clip_model.safetensors"
    if change == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        save_file({"logit_scale": torch.ones(())}, weights)
    with pytest.raises(ModelError, match="cannot load CLIP model"):
        load(f"local-dir:{folder}")


def test_every_quickgelu_mismatch_of_open_clip_is_an_error_that_names_the_right_model() -> None:
    refused = []
    for name, tag in open_clip.list_pretrained():
        wants = bool(open_clip.get_pretrained_cfg(name, tag).get("quick_gelu"))
        if wants != bool(open_clip.get_model_config(name).get("quick_gelu")):
            with pytest.raises(ModelError) as caught:
                load(f"{name}/{tag}")
            advised = caught.value.remedy.removeprefix("Use ")
            if not advised.startswith("hf-hub:"):  # a repository brings settings of its own
                sources.pretrained_config(advised)
            refused.append((name, tag))
        else:
            sources.pretrained_config(f"{name}/{tag}")
    assert ("ViT-B-16", "openai") in refused
    assert ("ViT-B-16-quickgelu", "openai") not in refused


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("ViT-B-99/openai", ["ViT-B-99", "ViT-B-16", "mini"]),
        ("ViT-B-16-quickgelu/opnai", ["opnai", "Did you mean 'openai'"]),
        ("ViT-B-16-quickgelu", ["openai"]),
    ],
)
def test_unknown_names_show_the_known_ones(spec: str, words: list[str]) -> None:
    with pytest.raises(IpoError) as caught:
        load(spec)
    assert all(word in str(caught.value) for word in words)


def test_a_text_longer_than_the_context_is_an_error_that_names_it_and_its_count() -> None:
    clip = tiny_openclip()
    text = "word " * 76 + "accordion"
    assert clip.token_count(text) > 77
    with pytest.raises(PromptError, match=f"text of {clip.token_count(text)} tokens exceeds the 77") as caught:
        clip.encode_texts(["fine", text])
    assert "accordion" in str(caught.value)
    with pytest.raises(PromptError, match="exceeds"):
        clip.encode_tokens([[320] * 76])
    with pytest.raises(PromptError, match="exceeds"):
        clip.encode_embeddings(["cat"], torch.zeros(1, 1, 76, clip.width))


def test_a_text_that_fills_the_context_is_not_cut() -> None:
    clip = tiny_openclip()
    texts = ["word " * 74 + name for name in ("cat", "dog")]
    assert [clip.token_count(text) for text in texts] == [77, 77]
    features = clip.encode_texts(texts)
    assert (features[0] - features[1]).abs().max() > 1e-3


def test_features_are_of_unit_length_float32_and_without_gradient() -> None:
    clip = tiny_openclip(precision="bfloat16")
    images, texts = clip.encode_images(torch.rand(2, 3, 32, 32)), clip.encode_texts(["a", "b"])
    for features in (images, texts):
        assert (features.dtype, features.requires_grad) == (torch.float32, False)
        torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    assert clip.encode_texts([]).shape == (0, DIM)


def test_the_words_own_embeddings_as_context_give_the_text() -> None:
    clip = tiny_openclip()
    names = ["cat", "dog house", "accordion"]
    before, after = clip.embed_words("a photo of a")[None, None], clip.embed_words("in the snow")[None, None]
    features = clip.encode_embeddings(names, before, after)
    expected = clip.encode_texts([f"a photo of a {name} in the snow." for name in names])
    torch.testing.assert_close(features[0], expected, rtol=0, atol=1e-5)
    none = clip.encode_embeddings(names, before[:, :, :0], tail="!")
    torch.testing.assert_close(none[0], clip.encode_texts([f"{name}!" for name in names]), rtol=0, atol=1e-5)


def test_raw_token_ids_give_the_text() -> None:
    clip = tiny_openclip()
    ids = [open_clip.tokenizer.SimpleTokenizer().encode(text) for text in ("a cat", "itap of a dog")]
    assert torch.equal(clip.encode_tokens(ids), clip.encode_texts(["a cat", "itap of a dog"]))


def test_vocabulary_is_readable() -> None:
    names, embeddings = tiny_openclip().vocabulary()
    assert len(names) == len(embeddings) == 49408
    assert names[320] == "a "


def test_image_tower_starts_as_the_frozen_one_and_trains_alone() -> None:
    clip = tiny_openclip()
    pixels = torch.rand(2, 3, 32, 32)
    tower, frozen = clip.image_tower(), clip.encode_images(pixels)
    torch.testing.assert_close(tower(pixels), frozen)
    tower(pixels).sum().backward()
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(0.1)
    assert torch.equal(clip.encode_images(pixels), frozen)


def test_fingerprint_names_weights_preprocessing_and_precision() -> None:
    module = tiny_module()
    module.positional_embedding[3, 5] += 1e-3
    keys = {
        tiny_openclip().fingerprint.key,
        tiny_openclip(module).fingerprint.key,
        tiny_openclip(precision="bfloat16").fingerprint.key,
    }
    assert len(keys) == 3
    assert tiny_openclip().fingerprint == tiny_openclip().fingerprint


@pytest.mark.parametrize(
    ("layout", "first", "second"),
    [
        (CLIP, {}, {"quick_gelu": True}),
        (CLIP, {}, {"heads": 4}),
        (CustomTextCLIP, {"pool_type": "last"}, {"pool_type": "first"}),
        (CustomTextCLIP, {}, {"no_causal_mask": True}),
    ],
)
def test_models_of_equal_weights_that_compute_otherwise_have_keys_of_their_own(
    layout: type, first: dict[str, Any], second: dict[str, Any]
) -> None:
    modules = [tiny_module(layout, **options) for options in (first, second)]
    one, other = (module.state_dict() for module in modules)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert tiny_openclip(modules[0]).fingerprint.key != tiny_openclip(modules[1]).fingerprint.key
    assert model_hash(modules[0]) == model_hash(tiny_module(layout, **first))


def test_preprocess_travels_to_worker_processes_without_the_model(tmp_path: Path) -> None:
    assert len(pickle.dumps(load(f"local-dir:{saved(tmp_path)}").preprocess)) < 10_000


def test_logit_scale_is_exponentiated() -> None:
    module = tiny_module()
    assert tiny_openclip(module).logit_scale == pytest.approx(float(module.logit_scale.exp()))


def test_plain_path_is_encode_text() -> None:
    module = tiny_module()
    sequences = [Tokens(open_clip.tokenizer.SimpleTokenizer(), 77).sequence(text) for text in TEXTS]
    expected = module.encode_text(open_clip.tokenize(TEXTS), normalize=True)
    torch.testing.assert_close(plain_path(module).encode(sequences), expected, rtol=0, atol=1e-6)
