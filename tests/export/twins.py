"""One tiny CLIP in one folder, as open_clip and as transformers save it, so that both give the same figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from tests.clip.tiny_openclip import DIM, TEXT, TOKENIZER, VISION, tiny_module

END = 49407


def save_twins(folder: Path) -> Path:
    """The folder with the files of both."""
    module = tiny_module(quick_gelu=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in module.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    settings = {"embed_dim": DIM, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}
    preprocess = {"size": [32, 32], "mean": OPENAI_DATASET_MEAN, "std": OPENAI_DATASET_STD}
    config = {
        "model_cfg": settings,
        "preprocess_cfg": {**preprocess, "interpolation": "bicubic", "resize_mode": "shortest"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    twin = CLIPModel(twin_config()).eval()
    missing = twin.load_state_dict(twin_weights(module.state_dict()), strict=False).missing_keys
    assert not [name for name in missing if "position_ids" not in name], missing
    twin.save_pretrained(folder)
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {special.get(token, token): number for token, number in TOKENIZER.encoder.items()}
    CLIPTokenizer(vocab=vocabulary, merges=list(TOKENIZER.bpe_ranks), model_max_length=77).save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size=32, image_mean=OPENAI_DATASET_MEAN, image_std=OPENAI_DATASET_STD
    ).save_pretrained(folder)
    return folder


def twin_config() -> CLIPConfig:
    both = {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2, "hidden_act": "quick_gelu"}
    text = {**both, "vocab_size": END + 1, "num_hidden_layers": 3, "eos_token_id": END, "bos_token_id": END - 1}
    vision = {**both, "num_hidden_layers": 1, "image_size": 32, "patch_size": 16}
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=DIM)


def twin_weights(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of open_clip's CLIP by the names of transformers."""
    found = {
        "logit_scale": own["logit_scale"],
        "text_model.embeddings.token_embedding.weight": own["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": own["positional_embedding"],
        "text_projection.weight": own["text_projection"].T,
        "vision_model.embeddings.class_embedding": own["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": own["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": own["visual.positional_embedding"],
        "visual_projection.weight": own["visual.proj"].T,
    }
    norms = {
        "text_model.final_layer_norm": "ln_final",
        "vision_model.pre_layrnorm": "visual.ln_pre",
        "vision_model.post_layernorm": "visual.ln_post",
    }
    pairs = dict(norms)
    for tower, place, layers in (("text_model", "transformer", 3), ("vision_model", "visual.transformer", 1)):
        for layer in range(layers):
            theirs, ours = f"{tower}.encoder.layers.{layer}", f"{place}.resblocks.{layer}"
            pairs |= {
                f"{theirs}.layer_norm1": f"{ours}.ln_1",
                f"{theirs}.layer_norm2": f"{ours}.ln_2",
                f"{theirs}.self_attn.out_proj": f"{ours}.attn.out_proj",
                f"{theirs}.mlp.fc1": f"{ours}.mlp.c_fc",
                f"{theirs}.mlp.fc2": f"{ours}.mlp.c_proj",
            }
            for kind in ("weight", "bias"):
                parts = own[f"{ours}.attn.in_proj_{kind}"].chunk(3)
                found |= {
                    f"{theirs}.self_attn.{name}_proj.{kind}": part for name, part in zip("qkv", parts, strict=True)
                }
    found |= {f"{one}.{kind}": own[f"{other}.{kind}"] for one, other in pairs.items() for kind in ("weight", "bias")}
    return found


def twin_features(folder: Path, images: list[Any]) -> Tensor:
    """Image features (N, D) of unit length by transformers."""
    model, processor = CLIPModel.from_pretrained(folder), CLIPImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        found = model.get_image_features(**processor(images=images, return_tensors="pt"))
    found = getattr(found, "pooler_output", found)
    return torch.nn.functional.normalize(found, dim=-1)
