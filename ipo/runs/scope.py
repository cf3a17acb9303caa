"""Which settings are read as others are. What is passed over is refused where asked for, and never recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ipo.config import Settings
from ipo.config.fields import setting_fields
from ipo.data.load import require_known, target_parts
from ipo.llm.load import is_remote
from ipo.runs.readers import Reader
from ipo.search.strategy import choose

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


def unread(reader: Reader, settings: Settings) -> dict[str, str]:
    """The settings that nobody reads as these settings are, each with the reason."""
    found = {key: "" for key in setting_fields() if not reader.reads(key)}
    for key, (decider, condition) in CONDITIONS.items():
        if reader.reads(key) and reader.reads(decider) and (reason := condition(settings)):
            found[key] = reason
    if reader.reads("strategy"):
        chosen = choose(settings.strategy)
        reason = f"the strategy {chosen.strategy.name} does not read it"
        found |= {key: reason for key in setting_fields() if key not in found and chosen.passes_over(key)}
    return found
