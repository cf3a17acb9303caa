"""Which settings a command reads. What nobody would read is refused where it was asked for, and never recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from ipo.config import Settings
from ipo.data.load import require_known, target_parts
from ipo.llm.load import is_remote

Command = Literal["optimize", "baseline", "evaluate", "verify"]

EVERYTHING = tuple(Settings.model_fields)
READS: Mapping[Command, tuple[str, ...]] = {
    "optimize": EVERYTHING,
    "baseline": ("data", "clip", "seed", "offline"),
    "evaluate": (
        "data.dataset", "data.root", "data.domains", "data.names", "data.skip_unreadable", "clip", "seed", "offline",
    ),
    "verify": ("data.root", "data.skip_unreadable", "clip", "seed", "offline"),
}  # fmt: skip
"""Sections, and settings of sections, that each command reads."""

Condition = Callable[[Settings], str]
"""Why settings are not read where others are as they are; empty where they are read."""


def _on_a_server(settings: Settings) -> str:
    remote = is_remote(settings.llm.spec, offline=settings.offline)
    return f"{settings.llm.spec} is a model on a server" if remote else ""


def _on_this_machine(settings: Settings) -> str:
    return "" if _on_a_server(settings) else f"{settings.llm.spec} is a model on this machine"


def _not_captioned_by_a_server(settings: Settings) -> str:
    return "" if settings.captions.captioner.startswith("openai:") else "the captioner is no openai: one"


def _not_captioned(settings: Settings) -> str:
    return "there is no captioner" if settings.captions.captioner == "none" else ""


def _is_own(spec: str) -> bool:
    return ":" in require_known(spec)


def _of_the_catalogue(settings: Settings) -> str:
    dataset = settings.data.dataset
    return "" if not dataset or _is_own(dataset) else f"{dataset} has names of its own"


def _all_own(settings: Settings) -> str:
    data = settings.data
    specs = [data.dataset, *(target_parts(target)[0] for target in data.targets)]
    named = data.dataset and all(_is_own(spec) for spec in specs)
    return "no dataset of the catalogue is used" if named else ""


CONDITIONS: Mapping[str, tuple[str, Condition]] = {
    "llm.base_url": ("llm.spec", _on_this_machine),
    "llm.timeout": ("llm.spec", _on_this_machine),
    "llm.retries": ("llm.spec", _on_this_machine),
    "llm.concurrency": ("llm.spec", _on_this_machine),
    "llm.response_format": ("llm.spec", _on_this_machine),
    "llm.device": ("llm.spec", _on_a_server),
    "llm.dtype": ("llm.spec", _on_a_server),
    "search.min_likelihood": ("llm.spec", _on_a_server),
    "captions.base_url": ("captions.captioner", _not_captioned_by_a_server),
    "captions.token_budget": ("captions.captioner", _not_captioned),
    "data.names": ("data.dataset", _of_the_catalogue),
    "data.root": ("data.dataset", _all_own),
}
"""Settings that are read only where another setting allows it: that one, and why it may not."""


def reads(command: Command, key: str) -> bool:
    """Whether a command reads a setting, under some other settings at least."""
    return key in READS[command] or key.partition(".")[0] in READS[command]


def unread(command: Command, settings: Settings) -> dict[str, str]:
    """The settings that a command does not read as these settings are, each with the reason."""
    found = {key: "" for key in setting_names() if not reads(command, key)}
    for key, (decider, condition) in CONDITIONS.items():
        if reads(command, key) and reads(command, decider) and (reason := condition(settings)):
            found[key] = reason
    return found


def setting_names() -> list[str]:
    """Every setting as `section.key`, or as `key` where it stands in no section."""
    names = []
    for name, field in Settings.model_fields.items():
        keys = getattr(field.annotation, "model_fields", None)
        names += [name] if keys is None else [f"{name}.{key}" for key in keys]
    return names


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested values by their dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return found


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted names as nested ones: the inverse of `flat`, at most two deep."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        section, dot, key = name.partition(".")
        if dot:
            found.setdefault(section, {})[key] = value
        else:
            found[section] = value
    return found
