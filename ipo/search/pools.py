"""Prompts that a search may set out from, beside the first ones of its settings: a file of them, or CLIP's 80."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from pydantic import field_validator

from ipo.config import SearchSettings, Section
from ipo.errors import ConfigError, PromptError
from ipo.prompt import CLASS_PLACEHOLDER, Prompt, text_key
from ipo.store.inputs import read_input


class StartOptions(Section):
    """What is scored before the first step."""

    start: str = "80"
    """Start templates: the `first` prompts of the search alone, or with CLIP's `80` or those of a file, one a line."""

    @field_validator("start", mode="before")
    @classmethod
    def _is_text(cls, start: Any) -> Any:
        return str(start) if start == 80 else start

    @field_validator("start")
    @classmethod
    def _can_be_read(cls, start: str) -> str:
        """A file by a path that no longer depends on the working folder."""
        if start in ("first", "80"):
            return start
        path = Path(start).expanduser().absolute()
        read_prompts(path)
        return str(path)


def start_templates(settings: SearchSettings, options: StartOptions) -> tuple[str, ...]:
    """The settings' first prompts, and the other start templates after them."""
    if options.start == "first":
        return settings.first_prompts
    more = eighty() if options.start == "80" else read_prompts(Path(options.start))
    known = {text_key(text) for text in settings.first_prompts}
    return (*settings.first_prompts, *(prompt.text for prompt in more if prompt.key() not in known))


@cache
def eighty() -> tuple[Prompt, ...]:
    """The 80 prompts that CLIP's authors wrote for ImageNet (arXiv 2103.00020), in their order."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return tuple(Prompt(fill(CLASS_PLACEHOLDER)) for fill in OPENAI_IMAGENET_TEMPLATES)


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a text file, one a line; empty lines are passed over. Raises `PromptError` naming the line."""
    lines = read_input(path, "prompts", ConfigError).splitlines()
    prompts = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                prompts.append(Prompt(line.strip()))
            except PromptError as error:
                raise PromptError(error.what, where=f"{path}:{number}", remedy=error.remedy) from error
    if not prompts:
        raise ConfigError("no prompts in the file", where=str(path))
    return tuple(prompts)
