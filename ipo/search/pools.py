"""Prompts that a search may set out from, beside the first ones of its settings: a file of them, or CLIP's 80."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ipo.errors import ConfigError, PromptError
from ipo.prompt import CLASS_PLACEHOLDER, Prompt
from ipo.store.inputs import read_input


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
