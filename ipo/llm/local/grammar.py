"""Grammar-constrained decoding with llguidance's NumPy masks: a local model can write nothing but a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

import llguidance.numpy
import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from ipo.errors import LLMError
from ipo.prompt import CLASS_PLACEHOLDER, text_key

MAX_WORDS_BEFORE = 8
MAX_WORDS_AFTER = 9
END = "."
"""What every proposal ends with."""
_SHORTEST_LIMIT = 24

_WORDS = r"[A-Za-z0-9][A-Za-z0-9 ,'()-]{2,70}[A-Za-z0-9)]"
TEXT_GRAMMARS = {
    "lines": "start: LINES\n" + rf"LINES: /\n?- {_WORDS}(\n- {_WORDS}){{2,7}}\n\n/",
    "sentence": "start: SENTENCE\n" + r"SENTENCE: / ?[A-Z][A-Za-z0-9 ,'()-]{15,220}\./",
}
"""The languages of texts that are no prompts: 3 to 8 lines after dashes, or a sentence without a stop inside."""


def prompt_grammar(max_characters: int) -> str:
    """The language of proposals: 1 to 8 words, the class slot, up to 9 words, a stop; at most `max_characters` long.

    A token holds at least one character, so a sampler that may take `max_characters` tokens never cuts a prompt.
    """
    word = r"(a|[a-z]{2,14}(-[a-z]{2,12})?('s)?)"
    before = rf" ?([A-Z][a-z]{{0,14}}|{word})(,? {word}){{0,{MAX_WORDS_BEFORE - 1}}} "
    after = rf"(,? {word}){{0,{MAX_WORDS_AFTER}}}\."
    limit = max(max_characters, _SHORTEST_LIMIT)
    return f"start: PROMPT\nPROMPT: /{before}{CLASS_PLACEHOLDER}{after}/ & /.{{1,{limit}}}/"


def ends(pieces: Sequence[str]) -> Tensor:
    """Which of the tokens with these texts can end a proposal: their ids."""
    return torch.tensor([index for index, piece in enumerate(pieces) if piece.endswith(END)], dtype=torch.long)


class Novelty:
    """Keeps texts from ending as one that is known, so that a sample goes on until it is something new."""

    def __init__(
        self,
        ends: Tensor,
        decode: Callable[[Sequence[int]], str],
        known: AbstractSet[str],
        key: Callable[[str], str] = text_key,
    ) -> None:
        """Texts with one `key` are one text; `known` are keys."""
        self._ends, self._decode, self._known, self._text_key = ends, decode, set(known), key

    def forbid(self, allowed: Tensor, texts: Sequence[Sequence[int] | None]) -> None:
        """Clear in `allowed` (rows, width) what would end a text as a known one, unless nothing else is left."""
        for row, ids in zip(allowed, texts, strict=True):
            ends = [] if ids is None else self._ends[row[self._ends]].tolist()
            known = [end for end in ends if self._key([*(ids or ()), end]) in self._known]
            if known and int(row.sum()) > len(known):
                row[known] = False

    def learn(self, ids: Sequence[int]) -> None:
        """Count a finished text among the known ones."""
        self._known.add(self._key(ids))

    def _key(self, ids: Sequence[int]) -> str:
        return self._text_key(self._decode(ids))


class GrammarMask:
    """Which tokens may come next, for each of several texts written side by side, each by a grammar of its own."""

    def __init__(self, table: LLTokenizer, grammars: Sequence[str], novelty: Novelty | None = None) -> None:
        self._novelty = novelty
        self._texts: list[list[int]] = [[] for _ in grammars]
        first = {grammar: LLMatcher(table, grammar) for grammar in dict.fromkeys(grammars)}
        self._matchers = [first[grammar].deep_copy() for grammar in grammars]
        self._bits = llguidance.numpy.allocate_token_bitmask(len(grammars), table.vocab_size)

    def allowed(self, width: int) -> Tensor:
        """Boolean mask (rows, width) of the tokens that keep each text inside the grammar."""
        for row, matcher in enumerate(self._matchers):
            if matcher.is_stopped():
                self._bits[row] = -1
            else:
                llguidance.numpy.fill_next_token_bitmask(matcher, self._bits, row)
        bits = np.unpackbits(self._bits.view(np.uint8), axis=1, bitorder="little")[:, :width]
        mask = torch.from_numpy(bits.astype(bool))
        if self._novelty is not None:
            pairs = zip(self._texts, self._matchers, strict=True)
            self._novelty.forbid(mask, [None if matcher.is_stopped() else text for text, matcher in pairs])
        return mask

    def advance(self, tokens: Sequence[int]) -> list[bool]:
        """Append one token to each text that is not complete; whether each text is complete now."""
        for matcher, text, token in zip(self._matchers, self._texts, tokens, strict=True):
            if matcher.is_stopped():
                continue
            if not matcher.consume_token(token):
                raise LLMError(f"the grammar broke: {matcher.get_error()}", remedy="Lower llm.max_tokens")
            text.append(token)
            if self._novelty is not None and matcher.is_stopped():
                self._novelty.learn(text)
        return [matcher.is_stopped() for matcher in self._matchers]
