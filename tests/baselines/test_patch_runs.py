"""Whole runs of methods that need patch features: told first, stored, found again, and refused where there are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ipo.clip.openclip import OpenClip
from ipo.errors import ModelError
from tests.clip.tiny_openclip import DIM
from tests.test_fit import NAMES, UNTIMED, baseline, common, own_cache  # noqa: F401


def test_patch_features_are_told_stored_and_found_again(common, tmp_path, monkeypatch):  # noqa: F811
    said: list[str] = []
    monkeypatch.setattr("ipo.run.say", said.append)
    first = baseline("plot", *common, "--set", "epochs=2", "--set", "n_ctx=2", "--out", tmp_path / "run")
    [folder] = (tmp_path / "cache" / "features").glob("*-patches")
    # Two base classes of two training, one validation and two test images, and as many test images of new ones.
    assert said == [f"patch features of 14 images take 1 MB in {tmp_path / 'cache'}"]
    shards = [load_file(path)["features"] for path in folder.glob("*.safetensors")]
    assert sum(map(len, shards)) == 14
    assert {(*shard.shape[1:], str(shard.dtype)) for shard in shards} == {(5, DIM, "torch.float16")}
    assert first["uses"] == ["labels"]

    def fail(self, pixels):
        raise AssertionError("they are there")

    monkeypatch.setattr(OpenClip, "encode_patches", fail)
    again = baseline("plot", *common, "--set", "epochs=2", "--set", "n_ctx=2", "--out", tmp_path / "again")
    assert {**again, **UNTIMED} == {**first, **UNTIMED}
    assert len(said) == 1


def test_sap_asks_for_patches_with_fusion_alone(common, tmp_path):  # noqa: F811
    file = tmp_path / "descriptions.json"
    file.write_text(json.dumps({name: ["a colour", f"which is {name}"] for name in NAMES}))
    settings = ["--set", f"descriptions={file}", "--set", "epochs=1", "--set", "batch=2"]
    figures = [
        baseline("sap", *common, *settings, "--set", f"fusion={fusion}", "--out", tmp_path / fusion)
        for fusion in ("false", "true")
    ]
    assert [result["figures"]["texts"] for result in figures] == [4, 4]
    assert figures[0]["uses"] == ["labels", "llm_saw_class_names"]
    assert len(list((tmp_path / "cache" / "features").glob("*-patches"))) == 1


def test_a_tower_without_patches_is_refused_before_an_image_is_encoded(common, tmp_path, monkeypatch):  # noqa: F811
    def fail(self, pixels):
        raise AssertionError("an image was encoded")

    monkeypatch.setattr(OpenClip, "patch_count", 0)
    monkeypatch.setattr(OpenClip, "encode_images", fail)
    with pytest.raises(ModelError, match=r"has no patch features: .* Take a ViT of open_clip"):
        baseline("plot", *common, "--out", tmp_path / "run")
    assert not Path(tmp_path / "run").exists()
