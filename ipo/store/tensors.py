"""Tensors in files, written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from ipo.errors import RunError
from ipo.store.files import write_atomic


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write safetensors, atomically."""
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(path, save(whole, dict(metadata or {})))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata that `save_tensors` wrote. Raises `RunError` for a broken file."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        return load_file(path), metadata
    except (SafetensorError, OSError) as error:
        raise damaged(path, str(error)) from error


def damaged(path: Path, what: str) -> RunError:
    """The error of a file whose tensors are of no use."""
    return RunError(f"cannot read tensors: {what}", where=str(path), remedy="Remove it to start anew")
