"""Texts to token ids and back, for open_clip's own tokenizer and for Hugging Face ones; never truncated."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from open_clip.tokenizer import SigLipTokenizer, SimpleTokenizer, basic_clean, canonicalize_text
from torch import Tensor

from ipo.errors import ModelError, PromptError


def vector_id(row: int) -> int:
    """What stands in an id sequence for a row of given vectors: a negative number, which no token has."""
    return -1 - row


def is_vector(ids: Tensor) -> Tensor:
    """Which ids (...) stand for rows of given vectors."""
    return ids < 0


def vector_rows(ids: Tensor) -> Tensor:
    """The rows that ids (...) stand for; 0 for a token."""
    return (-1 - ids).clamp(min=0)


class Tokens:
    """What stands around the words of a text (`start`, `end`), how it is padded, and the ids of the words."""

    def __init__(self, tokenizer: Any, context_length: int) -> None:
        self.context_length = context_length
        self._tokenizer = tokenizer
        if getattr(tokenizer, "tokenizer_mode", ""):
            raise ModelError(
                f"tokenizer mode '{tokenizer.tokenizer_mode}' is not supported", remedy="Use another model"
            )
        if isinstance(tokenizer, SimpleTokenizer):
            self.start, self.end, self.pad = [tokenizer.sot_token_id], [tokenizer.eot_token_id], 0
        else:
            self.start, self.end = self._specials()
            self.pad = int(tokenizer.tokenizer.pad_token_id)
        self.words = lru_cache(maxsize=1 << 16)(self._words)

    def sequence(self, text: str) -> list[int]:
        """All ids of `text`, start and end included. Raises `PromptError` where they exceed the context."""
        ids = [*self.start, *self.words(text), *self.end]
        self.check(len(ids), text)
        return ids

    def check(self, count: int, text: str) -> None:
        """Raise `PromptError` where `count` tokens of `text` are more than the context holds."""
        if count > self.context_length:
            raise PromptError(
                f"text of {count} tokens exceeds the {self.context_length} that the model reads",
                where=repr(text),
                remedy="Shorten the prompt",
            )

    def padded(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Ids (N, context length) of `sequences`, each with its padding behind it."""
        rows = [[*ids, *[self.pad] * (self.context_length - len(ids))] for ids in sequences]
        return torch.tensor(rows, dtype=torch.long).view(len(rows), self.context_length)

    def own(self, text: str) -> list[list[int]]:
        """What the model's own tokenizer makes of `text`: padded ids (1, context length), cut where it is too long."""
        ids: list[list[int]] = self._tokenizer([text], context_length=self.context_length).tolist()
        return ids

    def readable(self, count: int) -> list[str]:
        """Readable form of the first `count` token ids, a trailing space where a word ends."""
        if isinstance(self._tokenizer, SimpleTokenizer):
            decoder = self._tokenizer.decoder
            return [decoder.get(index, f"<{index}>").replace("</w>", " ") for index in range(count)]
        names = self._tokenizer.tokenizer.convert_ids_to_tokens(list(range(count)))
        return [name or f"<{index}>" for index, name in enumerate(names)]

    def _words(self, text: str) -> tuple[int, ...]:
        if isinstance(self._tokenizer, SimpleTokenizer):
            return tuple(self._tokenizer.encode(text))
        return tuple(self._hub_ids(text, add_special_tokens=False))

    def _hub_ids(self, text: str, add_special_tokens: bool) -> list[int]:
        if isinstance(self._tokenizer, SigLipTokenizer):
            text = canonicalize_text(basic_clean(text))
        else:
            text = self._tokenizer.clean_fn(text)
        return list(self._tokenizer.tokenizer(text, add_special_tokens=add_special_tokens).input_ids)

    def _specials(self) -> tuple[list[int], list[int]]:
        """The ids that a Hugging Face tokenizer puts before and behind the words; open_clip zeroes some separators."""
        bare, full = self._hub_ids("a", add_special_tokens=False), self._hub_ids("a", add_special_tokens=True)
        begin = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        strip = getattr(self._tokenizer, "strip_sep_token", False)
        separator = self._tokenizer.tokenizer.sep_token_id if strip else None
        end = [0 if index == separator else index for index in full[begin + len(bare) :]]
        return full[:begin], end
