"""Grammar-constrained decoding with llguidance's NumPy masks: a local model can write nothing but a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import llguidance.hf
import llguidance.numpy
import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer

from ipo.errors import LLMError
from ipo.prompt import CLASS_PLACEHOLDER

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

MAX_WORDS_BEFORE = 8
MAX_WORDS_AFTER = 9
_SHORTEST_LIMIT = 24


def prompt_grammar(max_characters: int) -> str:
    """The language of proposals: 1 to 8 words, the class slot, up to 9 words, a stop; at most `max_characters` long.

    A token holds at least one character, so a sampler that may take `max_characters` tokens never cuts a prompt.
    """
    word = r"(a|[a-z]{2,14}(-[a-z]{2,12})?('s)?)"
    before = rf" ?([A-Z][a-z]{{0,14}}|{word})(,? {word}){{0,{MAX_WORDS_BEFORE - 1}}} "
    after = rf"(,? {word}){{0,{MAX_WORDS_AFTER}}}\."
    limit = max(max_characters, _SHORTEST_LIMIT)
    return f"start: PROMPT\nPROMPT: /{before}{CLASS_PLACEHOLDER}{after}/ & /.{{1,{limit}}}/"


def token_table(tokenizer: PreTrainedTokenizerBase, width: int) -> LLTokenizer:
    """llguidance's view of a Hugging Face tokenizer; `width` is that of the logits. Takes about half a second."""
    return llguidance.hf.from_tokenizer(tokenizer, n_vocab=width)


class GrammarMask:
    """Which tokens may come next, for each of several texts written side by side."""

    def __init__(self, table: LLTokenizer, grammar: str, rows: int) -> None:
        self._matchers = [LLMatcher(table, grammar) for _ in range(rows)]
        self._bits = llguidance.numpy.allocate_token_bitmask(rows, table.vocab_size)

    def allowed(self, width: int) -> Tensor:
        """Boolean mask (rows, width) of the tokens that keep each text inside the grammar."""
        for row, matcher in enumerate(self._matchers):
            if matcher.is_stopped():
                self._bits[row] = -1
            else:
                llguidance.numpy.fill_next_token_bitmask(matcher, self._bits, row)
        bits = np.unpackbits(self._bits.view(np.uint8), axis=1, bitorder="little")[:, :width]
        return torch.from_numpy(bits.astype(bool))

    def advance(self, tokens: Sequence[int]) -> list[bool]:
        """Append one token to each text that is not complete; whether each text is complete now."""
        for matcher, token in zip(self._matchers, tokens, strict=True):
            if not matcher.is_stopped() and not matcher.consume_token(token):
                raise LLMError(f"the grammar broke: {matcher.get_error()}", remedy="Lower llm.max_tokens")
        return [matcher.is_stopped() for matcher in self._matchers]
