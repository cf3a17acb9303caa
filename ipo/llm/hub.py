"""A hub model as a folder, cached or fetched; an unreachable hub is found out in seconds."""

from __future__ import annotations

import json
from pathlib import Path

from ipo.errors import ModelError
from ipo.net import probe

_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "merges.txt", "vocab.txt"]


def hub_folder(repo: str, *, offline: bool) -> Path:
    """The folder that holds a hub model, downloaded if need be. Raises `ModelError` with the remedy."""
    from huggingface_hub import snapshot_download

    cached = cached_folder(repo)
    if cached is not None:
        return cached
    if offline:
        raise ModelError(
            f"hf:{repo} is not on this machine, and --offline forbids to fetch it",
            remedy="Use --llm local-llama, a folder or a .gguf file, or leave --offline out",
        )
    require_hub(repo)
    try:
        return Path(snapshot_download(repo, allow_patterns=_FILES))
    except (OSError, ValueError) as error:
        raise ModelError(f"the download broke off: {str(error).splitlines()[0]}", where=f"hf:{repo}") from error


def cached_folder(repo: str) -> Path | None:
    """The folder of a model that lies whole in the local cache, else None. Raises `ModelError` for no name of one."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(repo, "config.json")
    except HFValidationError as error:
        raise ModelError(f"'{repo}' is no name of a hub model", remedy="Write hf:org/model") from error
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    index = folder / "model.safetensors.index.json"
    shards = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
    return folder if all((folder / shard).exists() for shard in shards) else None


def require_hub(repo: str) -> None:
    """Return if the hub answers and has `repo`. Raises `ModelError` with the remedy, within seconds, otherwise."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise _unreachable(repo, "HF_HUB_OFFLINE is set")
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = probe(f"{constants.ENDPOINT}/{repo}/resolve/main/config.json", headers)
    if answer in (401, 403, 404):
        raise ModelError(
            f"the hub has no model '{repo}' for you (HTTP {answer})",
            remedy="Check the name; for a gated model accept its licence and set HF_TOKEN",
        )
    if isinstance(answer, str) or answer >= 400:
        raise _unreachable(repo, answer if isinstance(answer, str) else f"HTTP {answer}")


def _unreachable(repo: str, reason: str) -> ModelError:
    return ModelError(
        f"the model hub cannot be reached for '{repo}' ({reason})",
        remedy="Use --offline (or IPO_OFFLINE=1) for models that need no hub, or name a folder or a .gguf file",
    )
