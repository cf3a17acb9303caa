"""A GGUF file, dequantised once into a folder of safetensors that loads in a moment."""

from __future__ import annotations

import hashlib
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ipo.errors import ModelError
from ipo.llm.local.weights import whole_model
from ipo.packages import extra_remedy
from ipo.progress import silent_pipes
from ipo.store.cache import cache_place
from ipo.store.disk import writing
from ipo.store.folders import made_once


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_gguf(path: Path) -> None:
    """Raise `ModelError` unless there is a file."""
    if not path.is_file():
        raise ModelError("no such GGUF file", where=str(path), remedy="Check the path")


def converted(path: Path) -> Path:
    """The folder with the weights of a `.gguf` file as float32 safetensors; made in the cache folder if missing.

    The folder's name holds the file's hash, so a changed file is converted anew. Raises `ModelError`.
    """
    require_gguf(path)
    folder = cache_place("models", f"{path.stem}-{file_hash(path)[:16]}")
    return made_once(folder, partial(convert, path), ModelError)


def convert(path: Path, folder: Path) -> None:
    """Write the weights of a `.gguf` file, and its tokenizer, into a folder. Raises `ModelError`."""
    import torch

    transformers: Any = import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    try:
        with silent_pipes():
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
            model = whole_model(
                transformers.AutoModelForCausalLM, str(path.parent), gguf_file=path.name, dtype=torch.float32
            )
    except (OSError, ValueError, KeyError, ImportError, NotImplementedError) as error:
        raise ModelError(
            f"transformers cannot read this GGUF file: {' '.join(str(error).split())[:200]}",
            where=str(path),
            remedy=f"Run: {extra_remedy('gguf')}, which brings llama.cpp to run the file as it is",
        ) from error
    config = model.config
    del config.quantization_config  # the loaded model counts as quantised and would refuse to be saved
    with torch.device("meta"):
        plain = transformers.AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    try:
        with writing(folder, ModelError):
            plain.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except SafetensorError as error:
        raise ModelError(f"cannot write the model: {error}", where=str(folder), remedy="Free some space") from error
