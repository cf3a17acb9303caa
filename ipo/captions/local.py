"""Captions by an image-and-text model on this machine, through transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ipo.captions.base import NO_HUB, short_hash
from ipo.clip.load import resolve_device
from ipo.config import Device
from ipo.data.images import load_image
from ipo.errors import ModelError
from ipo.llm.base import UNPAID
from ipo.llm.local.weights import whole_model
from ipo.llm.thoughts import answer_of
from ipo.net.hub import LANGUAGE_MODEL, hub_folder
from ipo.render import render

TEMPLATE = "caption.j2"
MAX_TOKENS = 120
"""Longest answer; what the model says beyond it is cut."""


class LocalDescriber:
    """Asks a model about one image at a time, greedily, so that its answers can be had again."""

    spent = UNPAID

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        self.model, self._processor, self._question = model, processor, render(TEMPLATE)
        self.name = f"{name}, question {short_hash(self._question)}"

    @torch.no_grad()
    def describe(self, images: Sequence[Path]) -> Iterator[tuple[Path, str]]:
        """An answer an image."""
        for path in images:
            content = [{"type": "image", "image": load_image(path)}, {"type": "text", "text": self._question}]
            inputs = self._processor.apply_chat_template(
                [{"role": "user", "content": content}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
            ).to(self.model.device, dtype=self.model.dtype)
            output = self.model.generate(**inputs, do_sample=False, max_new_tokens=MAX_TOKENS)
            answer = self._processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            yield path, answer_of(str(answer)) or ""


def load_local_describer(model: str, device: Device, *, offline: bool) -> LocalDescriber:
    """The describer around a folder or a hub model `org/name`. Raises `ModelError` where it cannot be loaded."""
    local = Path(model).is_dir()
    folder = Path(model) if local else hub_folder(model, LANGUAGE_MODEL, offline=offline, instead=NO_HUB)
    place = resolve_device(device)
    dtype = torch.float32 if place.type == "cpu" else torch.bfloat16
    transformers = import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    try:
        processor = transformers.AutoProcessor.from_pretrained(folder)
        network = whole_model(transformers.AutoModelForImageTextToText, str(folder), dtype=dtype)
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"cannot load captioner hf:{model}: {reason}") from error
    # The folder of a hub model is named by its revision.
    name = f"hf:{model}" if local else f"hf:{model}@{folder.name[:8]}"
    return LocalDescriber(network.to(place).eval(), processor, f"{name} in {str(dtype).removeprefix('torch.')}")
