"""From the settings to a captioner."""

from __future__ import annotations

from ipo.cache import cache_place
from ipo.captions.base import Captioner, Describer
from ipo.config import CaptionSettings, ClipSettings
from ipo.errors import ConfigError, ModelError, UnknownName


def make_captioner(settings: CaptionSettings, clip_settings: ClipSettings, *, offline: bool) -> Captioner | None:
    """The captioner that the settings name; None for `none`. Local ones run on the device of `clip_settings`.

    Raises `UnknownName` for a spec that is none, and `ModelError` where a model cannot be had.
    """
    if settings.captioner == "none":
        return None
    describer = _describer(settings, clip_settings, offline)
    return Captioner(describer, cache_place("captions"))


def _describer(settings: CaptionSettings, clip_settings: ClipSettings, offline: bool) -> Describer:
    kind, _, model = settings.captioner.partition(":")
    if settings.base_url is not None and kind != "openai":
        raise ConfigError("captions.base_url is set, but the captioner is not an openai: one", where=settings.captioner)
    # Each kind brings libraries that take seconds to import.
    if kind == "describe" and not model:
        from ipo.captions.offline import load_offline_describer

        return load_offline_describer(clip_settings)
    if kind == "hf" and model:
        from ipo.captions.local import load_local_describer

        return load_local_describer(model, clip_settings.device, offline=offline)
    if kind == "openai" and model:
        if offline and settings.base_url is None:
            remedy = "Use describe, give captions.base_url of your own server, or leave --offline out"
            raise ModelError(f"{settings.captioner} is not on this machine", remedy=remedy)
        from ipo.captions.api import ApiDescriber

        return ApiDescriber(model, settings.base_url)
    raise UnknownName("captioner", settings.captioner, ("none", "describe", "hf:ORG/MODEL", "openai:MODEL"))
