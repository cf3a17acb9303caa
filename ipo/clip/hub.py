"""Where open_clip's weights come from: this machine's caches, or the Hugging Face hub where it can be reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import constants, try_to_load_from_cache
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from ipo.clip.specs import require_architecture
from ipo.errors import ModelError, UnknownName
from ipo.net import probe

NO_HUB_REMEDY = "Use --offline, which takes the model 'mini', or give 'local-dir:PATH'"


@contextmanager
def weights_access(spec: str, *, offline: bool) -> Iterator[None]:
    """Make sure that the weights of `spec` are here or can be had; inside, files in the cache are used unasked.

    Raises `ModelError` in seconds, where open_clip would retry for most of a minute.
    """
    if spec.startswith("local-dir:"):
        yield
        return
    if is_cached(spec):
        with _no_network():
            yield
        return
    if offline:
        raise ModelError(f"weights of '{spec}' are not on this machine", remedy="Offline there is: mini")
    address = constants.ENDPOINT
    if isinstance(probe(address), str):
        raise ModelError(f"weights of '{spec}' are not here and {address} is out of reach", remedy=NO_HUB_REMEDY)
    yield


def is_cached(spec: str) -> bool:
    """Whether the weights of `spec` lie in the hub's cache folder or in open_clip's own."""
    if spec.startswith("hf-hub:"):
        repository, filename = spec.removeprefix("hf-hub:"), ""
    else:
        config = pretrained_config(spec)
        if not config.get("hf_hub"):
            name = config.get("url", "").rpartition("/")[2]
            return bool(name) and (Path("~/.cache/clip").expanduser() / name).is_file()
        repository, _, filename = config["hf_hub"].rpartition("/")
    names = {filename, str(Path(filename).with_suffix(".safetensors"))} if filename else set()
    names |= {HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME} if not filename else set()
    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in sorted(names))


def pretrained_config(spec: str) -> dict[str, Any]:
    """open_clip's entry for a `NAME/TAG`. Raises `ModelError` for an unknown tag and for a QuickGELU mismatch."""
    name, _, tag = spec.partition("/")
    require_architecture(name)
    architecture = open_clip.get_model_config(name)
    config: dict[str, Any] = open_clip.get_pretrained_cfg(name, tag)
    if not config:
        raise UnknownName(f"pretrained tag of {name}", tag, open_clip.list_pretrained_tags_by_model(name))
    wants, has = bool(config.get("quick_gelu")), bool(architecture.get("quick_gelu"))
    if wants != has:
        twin = f"{name}-quickgelu" if wants else name.removesuffix("-quickgelu")
        raise ModelError(
            f"'{tag}' was trained {'with' if wants else 'without'} QuickGELU, '{name}' computes "
            f"{'without' if wants else 'with'} it, and its features would be wrong",
            remedy=f"Use {twin}/{tag}",
        )
    return config


@contextmanager
def _no_network() -> Iterator[None]:
    """Have the hub's client take cached files without asking whether they are the newest."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
