"""A GGUF file, dequantised once into a folder of safetensors that loads in a moment."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from ipo.config import cache_folder
from ipo.errors import ModelError
from ipo.packages import extra_remedy
from ipo.progress import silent_pipes


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def converted(path: Path) -> Path:
    """The folder with the weights of a `.gguf` file as float32 safetensors; made in the cache folder if missing.

    The folder's name holds the file's hash, so a changed file is converted anew. Raises `ModelError`.
    """
    if not path.is_file():
        raise ModelError("no such GGUF file", where=str(path), remedy="Check the path")
    folder = cache_folder() / "models" / f"{path.stem}-{file_hash(path)[:16]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".converting-"))
        try:
            _convert(path, work)
            _publish(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return folder


def _publish(work: Path, folder: Path) -> None:
    """Rename a finished folder to its place, unless another process was first."""
    try:
        work.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def _convert(path: Path, folder: Path) -> None:
    import torch

    transformers: Any = import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    try:
        with silent_pipes():
            tokenizer = transformers.AutoTokenizer.from_pretrained(**source)
            model = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
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
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
