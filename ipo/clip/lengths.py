"""How long a text may be: CLIP must read it with every class name that it is tested with, not the fit's alone.

Names are not test images, so that lengths are known from the start and no run ends on a prompt that cannot be tested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

from ipo.clip.base import ClipModel
from ipo.errors import DataError, PromptError
from ipo.prompt import Prompt


@dataclass(frozen=True)
class TextRoom:
    """Tells whether a text fits with all class names, and nothing else of them: new ones are no business of a fit."""

    clip: ClipModel
    _names: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, clip: ClipModel, *classnames: Sequence[str]) -> Self:
        """The room for texts with some lists of class names."""
        names = dict.fromkeys(name for part in classnames for name in part)
        return cls(clip, tuple(sorted(names, key=clip.token_count, reverse=True)))

    def excess(self, length: Callable[[str], int]) -> str | None:
        """Why a text of `length` tokens with a class name does not fit with each of them; None where it does."""
        limit = self.clip.context_length
        counted = ((length(name), name) for name in self._names)  # the longest name first
        found = next(((tokens, name) for tokens, name in counted if tokens > limit), None)
        return found and f"{found[0]} tokens with '{found[1]}', and CLIP reads {limit}"

    def prompt_excess(self, prompt: Prompt) -> str | None:
        """Why `prompt` does not fit; None where it does."""
        return self.excess(lambda name: self.clip.token_count(prompt.fill(name)))

    def require_of_names(self, require: Callable[[Sequence[str]], None]) -> None:
        """Let `require` look at all class names; it raises an `IpoError` for those that lack something."""
        require(self._names)

    def fitting(self, prompts: Iterable[Prompt]) -> tuple[Prompt, ...]:
        """Those of `prompts` that fit."""
        return tuple(prompt for prompt in prompts if self.prompt_excess(prompt) is None)

    def require(self, prompts: Iterable[Prompt]) -> None:
        """Raise `PromptError` for the first of `prompts` that does not fit, and `DataError` for a class name alone."""
        alone = self.excess(self.clip.token_count)
        if alone is not None:
            raise DataError(f"a class name is too long: {alone}", remedy="Give the class a shorter name")
        for prompt in prompts:
            if excess := self.prompt_excess(prompt):
                remedy = "Shorten the prompt, or give the class a shorter name"
                raise PromptError(f"the prompt is too long: {excess}", where=repr(prompt.text), remedy=remedy)
