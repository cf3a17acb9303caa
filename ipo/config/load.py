"""Settings from defaults, a TOML file and `--set key=value`, in that order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ipo.config.settings import DEFAULT_CLIP, OFFLINE_CLIP, Settings
from ipo.errors import ConfigError
from ipo.store.toml import parse_toml, read_toml


def load_settings(file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Settings from a TOML file and nested `overrides` above it. Raises `ConfigError` naming each bad key."""
    values = {} if file is None else read_toml(file)
    try:
        settings = Settings.model_validate(merge(values, overrides or {}))
        return resolved(settings)
    except ValidationError as error:
        raise ConfigError(describe_validation(error), where=str(file or "settings")) from error


def resolved(settings: Settings) -> Settings:
    """The settings with what `auto` and unset values stand for where other settings decide it."""
    clip = settings.clip.model_copy(update={"model": clip_model(settings.clip.model, settings.offline)})
    return settings.model_copy(update={"clip": clip})


def clip_model(name: str, offline: bool) -> str:
    """The CLIP model that a setting names: `auto` is the paper's, and the stand-in offline."""
    if name != "auto":
        return name
    return OFFLINE_CLIP if offline else DEFAULT_CLIP


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as one; where both have a value, the one `above` holds. A value is no section: `ConfigError`."""
    result = dict(below)
    for key, value in above.items():
        under = result.get(key, {})
        if isinstance(value, Mapping) and not isinstance(under, Mapping):
            raise ConfigError(f"'{key}' = {under!r}: a section of settings, not a value")
        result[key] = merge(under, value) if isinstance(value, Mapping) else value
    return result


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`["search.steps=10"]` as a nested mapping. The value is read as TOML, or else as a plain string."""
    nested: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"'{assignment}' is not key=value", remedy="Write it like --set search.steps=10")
        value = _assigned(text)
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        nested = merge(nested, value)
    return nested


def _assigned(text: str) -> Any:
    """A value in TOML's notation; any other text is itself."""
    try:
        parsed = parse_toml(f"value = {text}")
    except ValueError:
        return text
    return parsed["value"] if parsed.keys() == {"value"} else text


_MESSAGES = {
    "tuple_type": 'input should be a list, such as ["..."]',
    "model_type": "a section of settings, not a value: write one of them, such as section.key=value",
}
"""Our words for what pydantic says of its own types."""


def describe_validation(error: ValidationError) -> str:
    """One line that names each bad key with what is wrong with it."""
    problems = []
    for row in error.errors():
        key = ".".join(str(part) for part in row["loc"])
        message = _MESSAGES.get(row["type"], row["msg"].removeprefix("Value error, "))
        if row["type"] == "extra_forbidden":
            problems.append(f"unknown key '{key}'")
        else:
            problems.append(f"'{key}' = {row['input']!r}: {message[0].lower()}{message[1:]}")
    return "; ".join(problems)
