"""From the settings to a captioner."""

from __future__ import annotations

import os
from pathlib import Path

from ipo.captions.base import NO_HUB, Captioner, Describer
from ipo.clip.specs import require_mini
from ipo.config import CaptionSettings, ClipSettings
from ipo.errors import ConfigError, ModelError, UnknownName
from ipo.store.cache import cache_place


def make_captioner(settings: CaptionSettings, clip_settings: ClipSettings, *, offline: bool) -> Captioner | None:
    """The captioner that the settings name; None for `none`. Local ones run on the device of `clip_settings`.

    Raises `UnknownName` for a spec that is none, and `ModelError` where a model cannot be had.
    """
    if settings.captioner == "none":
        return None
    describer = _describer(settings, clip_settings, offline)
    return Captioner(describer, cache_place("captions"))


def require_captioner(settings: CaptionSettings, *, offline: bool) -> str | None:
    """Raise what `make_captioner` would, as far as names and places tell; nothing is loaded.

    Returns its name in the price table; None for one that costs nothing.
    """
    kind, _, model = settings.captioner.partition(":")
    if settings.base_url is not None and kind != "openai":
        what, remedy = "captions.base_url is set, but the captioner is not an openai: one", "Leave it out"
        raise ConfigError(what, where=settings.captioner, remedy=remedy)
    if settings.captioner == "none":
        return None
    if settings.captioner == "describe":
        require_mini()
    elif kind == "hf" and model:
        _require_local(model, offline)
    elif kind == "openai" and model:
        return _require_server(settings, model, offline)
    else:
        raise UnknownName("captioner", settings.captioner, ("none", "describe", "hf:ORG/MODEL", "openai:MODEL"))
    return None


def _require_local(model: str, offline: bool) -> None:
    if not Path(model).is_dir():
        from ipo.net.hub import LANGUAGE_MODEL, require_repository

        require_repository(model, LANGUAGE_MODEL, offline=offline, instead=NO_HUB)
    elif not (Path(model) / "config.json").is_file():
        raise ModelError("no config.json", where=model, remedy="Give a folder saved by transformers")


def _require_server(settings: CaptionSettings, model: str, offline: bool) -> str:
    if offline and settings.base_url is None and not os.environ.get("OPENAI_BASE_URL"):
        remedy = "Use describe, give captions.base_url of your own server, or leave out --offline and IPO_OFFLINE"
        raise ModelError(f"{settings.captioner} is not on this machine", remedy=remedy)
    from ipo.llm.server.client import Server

    user = f"captioner {settings.captioner}"
    return Server(user, settings.base_url, "captions.base_url", timeout=1, retries=0).name_of(model)


def _describer(settings: CaptionSettings, clip_settings: ClipSettings, offline: bool) -> Describer:
    require_captioner(settings, offline=offline)
    kind, _, model = settings.captioner.partition(":")
    # Each kind brings libraries that take seconds to import.
    if kind == "describe":
        from ipo.captions.offline import load_offline_describer

        return load_offline_describer(clip_settings)
    if kind == "hf":
        from ipo.captions.local import load_local_describer

        return load_local_describer(model, clip_settings.device, offline=offline)
    from ipo.captions.api import ApiDescriber

    return ApiDescriber(model, settings.base_url)
