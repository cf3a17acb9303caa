"""CLIP models by way of a hub: the first start fetches, the second asks nobody, and every failure leads out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip import factory
from safetensors.torch import save_file
from transformers import RobertaConfig

from ipo.clip.openclip import OpenClip, load_openclip
from ipo.errors import ModelError
from tests.clip.test_hugging_face import hugging_face_tokenizer
from tests.clip.tiny_openclip import DIM, TEXT, TEXTS, VISION, tiny_module, tiny_openclip
from tests.hub_server import Hub, serving_hub
from tests.test_hub import use_hub

OPENAI = "timm/vit_base_patch16_clip_224.openai"
NAME = "ViT-B-16-quickgelu"
SIZES = {"embed_dim": DIM, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}
PREPROCESSING = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "interpolation": "bilinear", "resize_mode": "squash"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub, an empty cache, and an open_clip whose ViT-B/16 is tiny."""
    monkeypatch.setitem(factory._MODEL_CONFIGS, NAME, SIZES)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving_hub(tmp_path / "served") as running:
        use_hub(monkeypatch, running.address, tmp_path / "cache")
        yield running


def publish(server: Hub, repo: str, weights: str = "open_clip_model.safetensors", **module: Any) -> Path:
    """Put tiny random weights on the hub."""
    folder = server.root / repo
    folder.mkdir(parents=True)
    state = {name: tensor.contiguous() for name, tensor in tiny_module(quick_gelu=True, **module).state_dict().items()}
    if weights.endswith(".safetensors"):
        save_file(state, folder / weights)
    else:
        torch.save(state, folder / weights)
    return folder


def load(spec: str, offline: bool = False) -> OpenClip:
    return load_openclip(spec, device="cpu", precision="float32", text_memory_mb=64, offline=offline)


@pytest.mark.parametrize("weights", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_tag_is_fetched_once_and_is_what_open_clip_itself_would_load(server: Hub, weights: str, capsys) -> None:
    folder = publish(server, OPENAI, weights)
    (folder / "model.safetensors").write_bytes(b"the same for timm")
    first = load(f"{NAME}/openai")
    assert torch.equal(first.encode_texts(TEXTS), tiny_openclip(tiny_module(quick_gelu=True)).encode_texts(TEXTS))
    assert f"fetching hf:{OPENAI}" in capsys.readouterr().err
    assert server.requests("model.safetensors") == server.requests(weights) or weights.endswith(".bin")
    server.asked.clear()
    again, offline = load(f"{NAME}/openai"), load(f"{NAME}/openai", offline=True)
    assert server.asked == []
    theirs, transform = open_clip.create_model_from_pretrained(NAME, "openai")
    assert again.fingerprint == offline.fingerprint == first.fingerprint
    assert first.fingerprint.preprocessing == repr(theirs.visual.preprocess_cfg)
    assert repr(first.preprocess.transform) == repr(transform)


def test_a_repository_of_open_clip_is_fetched_once(server: Hub) -> None:
    folder = publish(server, "org/clip")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": SIZES, "preprocess_cfg": PREPROCESSING}))
    (folder / "model.safetensors").write_bytes(b"the same for timm")
    first = load("hf-hub:org/clip")
    assert server.requests("/model.safetensors") == []
    server.asked.clear()
    assert load("hf-hub:org/clip").fingerprint == first.fingerprint
    assert server.asked == []
    theirs, transform = open_clip.create_model_from_pretrained("hf-hub:org/clip")
    assert first.fingerprint.preprocessing == repr(theirs.visual.preprocess_cfg)
    assert repr(first.preprocess.transform) == repr(transform)


@pytest.mark.parametrize("own", [True, False], ids=["beside it", "of another repository"])
def test_a_tokenizer_of_hugging_face_comes_with_it_and_is_asked_for_once(server: Hub, own: bool) -> None:
    folder = publish(server, "org/clip", context_length=9)
    text = {**TEXT, "context_length": 9, "hf_tokenizer_name": "org/words"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**SIZES, "text_cfg": text}}))
    words = folder if own else server.root / "org/words"
    words.mkdir(exist_ok=True)
    hugging_face_tokenizer(words)
    first = load("hf-hub:org/clip")
    assert first.token_count("a photo of a cat.") == 8
    assert bool(server.requests("org/words")) is not own
    server.asked.clear()
    assert torch.equal(load("hf-hub:org/clip").encode_texts(["a cat."]), first.encode_texts(["a cat."]))
    assert server.asked == []


def test_the_settings_of_a_hugging_face_tower_are_fetched_once(server: Hub, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 64,
    }
    RobertaConfig(vocab_size=10, pad_token_id=0, max_position_embeddings=514, **sizes).save_pretrained(
        server.root / "org/tower"
    )
    hugging_face_tokenizer(server.root / "org/tower")
    text = {
        "hf_model_name": "org/tower", "hf_tokenizer_name": "org/tower", "hf_proj_type": "linear",
        "hf_pooler_type": "mean_pooler", "context_length": 9,
    }  # fmt: skip
    config = {**SIZES, "text_cfg": text, "custom_text": True}
    there = {**text, "hf_model_name": str(server.root / "org/tower"), "hf_model_pretrained": False}
    torch.manual_seed(0)
    module = factory.CustomTextCLIP(DIM, vision_cfg=VISION, text_cfg=there, quick_gelu=True)
    folder = server.root / "org/clip"
    folder.mkdir()
    save_file(
        {name: tensor.contiguous() for name, tensor in module.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    first = load("hf-hub:org/clip")
    assert server.requests("org/tower/resolve")
    server.asked.clear()
    assert load("hf-hub:org/clip").fingerprint == first.fingerprint
    assert server.asked == []


@pytest.mark.parametrize("spec", [f"{NAME}/openai", "hf-hub:org/clip"])
def test_what_the_remedies_name_leads_out(spec: str, server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"--offline forbids.*--clip mini.*local-dir:PATH.*once without --offline"):
        load(spec, offline=True)
    with pytest.raises(ModelError, match=r"no such model.*Check the name"):
        load(spec)
    server.refused[OPENAI] = server.refused["org/clip"] = (401, "GatedRepo")
    with pytest.raises(ModelError, match=r"gated, and no token was given.*Accept its licence at.*HF_TOKEN"):
        load(spec)
    use_hub(monkeypatch, "http://127.0.0.1:9", server.root / "cache")
    with pytest.raises(ModelError, match=r"cannot be fetched.*--clip mini, which needs no hub") as caught:
        load(spec)
    assert "\n" not in str(caught.value)


def test_broken_weights_or_settings_are_one_line(server: Hub) -> None:
    folder = publish(server, "org/clip")
    (folder / "open_clip_config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"open_clip_config\.json holds no settings"):
        load("hf-hub:org/clip")
    (publish(server, OPENAI) / "open_clip_model.safetensors").write_bytes(b"<html>")
    with pytest.raises(ModelError, match="cannot load CLIP model"):
        load(f"{NAME}/openai")
