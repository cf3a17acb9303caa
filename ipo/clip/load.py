"""From settings to a CLIP model. What is asked for is what is loaded: nothing is swapped for something else."""

from __future__ import annotations

import os

import torch

from ipo.clip.base import ClipModel
from ipo.config import STAND_INS, ClipSettings, Device, clip_model
from ipo.errors import ConfigError


def load_clip(settings: ClipSettings, *, offline: bool) -> ClipModel:
    """The model that `settings.model` names, frozen, on its device. Raises `ModelError` where it cannot be had."""
    device = resolve_device(settings.device)
    model = clip_model(settings.model, offline)
    # Each model's libraries take seconds to import, and only one of the two is wanted.
    if model in STAND_INS:
        from ipo.clip.mini import load_mini

        return load_mini(
            device=device, precision=settings.precision, text_memory_mb=settings.text_memory_mb, name=model
        )
    from ipo.clip.openclip import load_openclip

    return load_openclip(
        model,
        device=device,
        precision=settings.precision,
        text_memory_mb=settings.text_memory_mb,
        offline=offline,
    )


def resolve_device(name: Device) -> torch.device:
    """The device of a setting; among several processes on one machine, each takes the CUDA device of its local rank."""
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = "cuda" if available["cuda"] else "mps" if available["mps"] else "cpu"
    if not available[name]:
        raise ConfigError(
            f"device '{name}' is not there", remedy="Use --device auto, or auto for clip.device and llm.device"
        )
    return torch.device(name, int(os.environ.get("LOCAL_RANK", "0"))) if name == "cuda" else torch.device(name)
