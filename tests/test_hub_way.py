"""The way with a hub as a user meets it: `ipo optimize --llm local-llama` without `--offline`, twice."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from PIL import Image
from safetensors.torch import save_file

from ipo.llm.presets import presets
from tests.clip.test_from_the_hub import NAME, OPENAI, SIZES
from tests.clip.tiny_openclip import tiny_module
from tests.hub_server import Hub, serving_hub
from tests.llm.test_local import tiny_llm
from tests.processes import run_process
from tests.tiny_llava import save_tiny_llava

LLAMA = presets()["local-llama"].spec.removeprefix("hf:")
TOKEN = "hf_abcdefghijklmnopqrstuvwxyz012345"
START = f"""
import json, sys
from huggingface_hub import constants
from open_clip import factory
constants.DOWNLOAD_CHUNK_SIZE = 1000
factory._MODEL_CONFIGS[{NAME!r}] = json.loads({json.dumps(SIZES)!r})
from ipo.cli.main import main
main()
"""
"""The command, with an open_clip whose ViT-B/16 is tiny, and a client of the hub that takes small pieces."""


def publish(root: Path) -> None:
    """Tiny models under the names of the real ones."""
    weights = {name: tensor.contiguous() for name, tensor in tiny_module(quick_gelu=True).state_dict().items()}
    for repo in (OPENAI, LLAMA, "org/eyes"):
        (root / repo).mkdir(parents=True)
    save_file(weights, root / OPENAI / "open_clip_model.safetensors")
    tiny_llm().model.save_pretrained(root / LLAMA)
    tiny_llm().tokenizer.save_pretrained(root / LLAMA)
    save_tiny_llava(root / "org/eyes")


def draw_pictures(folder: Path) -> Path:
    for colour in ("red", "green"):
        (folder / colour).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (32 + index, 32), colour).save(folder / colour / f"{index}.png")
    return folder


def optimize(hub: Hub, tmp_path: Path, out: str) -> CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {
        "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN, "COLUMNS": "200",
        "IPO_CACHE": str(tmp_path / "cache"), "HF_HUB_DOWNLOAD_TIMEOUT": "5", "IPO_OFFLINE": "", "HF_HUB_OFFLINE": "",
    }  # fmt: skip
    arguments = ["optimize", "--llm", "local-llama", "--captioner", "hf:org/eyes", "--device", "cpu", "--shots", "1"]
    arguments += ["--dataset", f"folder:{tmp_path / 'pictures'}", "--steps", "1", "--candidates", "2", "--out", out]
    arguments += ["--set", "search.english_only=false", "--set", "clip.workers=0", "--set", "captions.token_budget=30"]
    command = [sys.executable, "-c", START, *arguments]
    return run_process(command, cwd=tmp_path, env=environment)


def written(folder: Path) -> bytes:
    """All that is in the files of a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.slow
def test_the_first_start_fetches_all_models_and_the_second_asks_nobody(tmp_path: Path) -> None:
    draw_pictures(tmp_path / "pictures")
    publish(tmp_path / "served")
    with serving_hub(tmp_path / "served") as hub:
        hub.cuts["model.safetensors"] = 20_000
        first = optimize(hub, tmp_path, "first")
        assert first.returncode == 0, first.stderr
        for repo in (OPENAI, LLAMA, "org/eyes"):
            assert f"fetching hf:{repo} " in first.stderr
        assert any("range" in headers for _, _, headers in hub.asked), "the broken download went on where it broke"
        hub.asked.clear()
        second = optimize(hub, tmp_path, "second")
        assert second.returncode == 0, second.stderr
        assert hub.asked == []
    assert "fetching" not in second.stderr
    history = (tmp_path / "first/history.jsonl").read_bytes()
    assert (tmp_path / "second/history.jsonl").read_bytes() == history
    shown = first.stdout + first.stderr + second.stdout + second.stderr
    assert TOKEN not in shown
    assert TOKEN.encode() not in written(tmp_path / "first") + written(tmp_path / "cache")
    assert f"{NAME}/openai" in first.stderr
    assert LLAMA in first.stderr
