"""Where open_clip's weights come from: folders on this machine, fetched from the Hugging Face hub where need be.

open_clip and transformers are then given paths alone, so that nothing which is here is asked for again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from ipo.clip.specs import require_architecture
from ipo.errors import ModelError, UnknownName
from ipo.net.hub import TEXT_FILES, TOKENIZER, Wanted, hub_folder

INSTEAD = "Use --clip mini, which needs no hub (the default under --offline), or --clip local-dir:PATH"
CONFIG = "open_clip_config.json"
_PREPROCESSING = ("mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True)
class Source:
    """A model that is on this machine, as open_clip takes it: a name or a `local-dir:`, and what belongs to it."""

    name: str
    weights: str | None = None
    text: dict[str, Any] = field(default_factory=dict)
    """The settings of the text side."""
    options: dict[str, Any] = field(default_factory=dict)
    """More arguments for `open_clip.create_model_from_pretrained`."""
    tokenizer: Path | None = None
    """The folder of a Hugging Face tokenizer; none for open_clip's own."""


def find_source(spec: str, *, offline: bool) -> Source:
    """What `spec` (`NAME/TAG`, `hf-hub:ORG/REPO` or `local-dir:PATH`) names, fetched if need be.

    Raises `ModelError` where it cannot be had, and for weights that do not fit.
    """
    if spec.startswith("local-dir:"):
        return _with_text_side(Source(spec, text=_text_settings(Path(spec.removeprefix("local-dir:")))), spec, offline)
    repo, wanted = _wanted(spec)
    folder = _folder(spec, repo, wanted, offline)
    if spec.startswith("hf-hub:"):
        return _with_text_side(Source(f"local-dir:{folder}", text=_text_settings(folder)), spec, offline)
    name, config = spec.partition("/")[0], pretrained_config(spec)
    weights = next(folder / file for file in wanted.groups[0] if (folder / file).is_file())
    options = {f"image_{key}": config[key] for key in _PREPROCESSING if config.get(key)}
    text = open_clip.get_model_config(name)["text_cfg"]
    return _with_text_side(Source(name, str(weights), text, options), spec, offline)


def require_source(spec: str, *, offline: bool) -> None:
    """Raise `ModelError` for a spec without weights, offline for one whose weights are not here. No hub is asked."""
    if not spec.startswith("local-dir:"):
        repo, wanted = _wanted(spec)
        if offline:
            _folder(spec, repo, wanted, offline)


def _wanted(spec: str) -> tuple[str, Wanted]:
    """The repository that holds the weights of `NAME/TAG` or `hf-hub:ORG/REPO`, and the files of it that are needed."""
    if spec.startswith("hf-hub:"):
        wanted = Wanted(((CONFIG,), (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)), TEXT_FILES)
        return spec.removeprefix("hf-hub:"), wanted
    repo, _, file = pretrained_config(spec)["hf_hub"].rpartition("/")
    names = (f"{file.rpartition('.')[0]}.safetensors", file) if file else (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
    return repo, Wanted((names,))


def _folder(spec: str, repo: str, wanted: Wanted, offline: bool) -> Path:
    """The folder of a repository that `spec` needs; an error says what for."""
    try:
        return hub_folder(repo, wanted, offline=offline, instead=INSTEAD)
    except ModelError as error:
        raise ModelError(f"CLIP model '{spec}': {error.what}", where=error.where, remedy=error.remedy) from error


def _text_settings(folder: Path) -> dict[str, Any]:
    try:
        text = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
        return dict(text)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{CONFIG} holds no settings of a model ({error!r})", where=str(folder)) from error


def _with_text_side(source: Source, spec: str, offline: bool) -> Source:
    """The source with the Hugging Face parts of its text side: a tokenizer, and the settings of a tower."""
    tower, tokenizer = source.text.get("hf_model_name"), source.text.get("hf_tokenizer_name")
    options, place = dict(source.options), None
    if tower and not Path(tower).is_dir():
        folder = _folder(spec, tower, Wanted((("config.json",),)), offline)
        options["text_cfg"] = {**source.text, "hf_model_name": str(folder), "hf_model_pretrained": False}
    if tokenizer:
        own = Path(source.name.removeprefix("local-dir:"))
        there = source.name.startswith("local-dir:") and any((own / name).is_file() for name in TOKENIZER)
        wanted = Wanted((TOKENIZER,), TEXT_FILES)
        place = own if there else _folder(spec, tokenizer, wanted, offline)
    return Source(source.name, source.weights, source.text, options, place)


def make_tokenizer(source: Source) -> Any:
    """The tokenizer of a source, by open_clip."""
    if source.tokenizer is None:
        return open_clip.get_tokenizer(source.name)
    return open_clip.tokenizer.HFTokenizer(
        str(source.tokenizer),
        context_length=source.text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
        tokenizer_mode=source.text.get("tokenizer_mode"),
        **source.text.get("tokenizer_kwargs", {}),
    )


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
        raise ModelError(
            f"'{tag}' was trained {'with' if wants else 'without'} QuickGELU, '{name}' computes "
            f"{'without' if wants else 'with'} it, and its features would be wrong",
            remedy=f"Use {_fitting_spec(name, tag, wants)}",
        )
    return config


def _fitting_spec(name: str, tag: str, wants: bool) -> str:
    """What has the same weights and computes as they were trained: a sister of the architecture, or the repository."""
    twin = f"{name}-quickgelu" if wants else name.removesuffix("-quickgelu")
    sister = open_clip.get_model_config(twin) or {}
    if open_clip.get_pretrained_cfg(twin, tag) and bool(sister.get("quick_gelu")) == wants:
        return f"{twin}/{tag}"
    return f"hf-hub:{open_clip.get_pretrained_cfg(name, tag)['hf_hub'].rpartition('/')[0]}, which says how it computes"
