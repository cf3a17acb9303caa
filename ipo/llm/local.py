"""Language models on this machine, writing nothing but prompts; what is the same whatever runs the weights.

Shape legend as in `ipo.llm.sampling`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property

from llguidance import LLTokenizer
from torch import Tensor

from ipo.errors import LLMError
from ipo.llm.base import Message, Reply, ReplyForm, Style
from ipo.llm.grammar import GrammarMask, Novelty, ends, prompt_grammar
from ipo.llm.sampling import Sampler, Step, sample


class LocalLLM(ABC):
    """A causal language model under a grammar: every reply is a valid prompt (form `line`)."""

    form: ReplyForm = "line"

    def __init__(self, name: str, style: Style, room: int | None) -> None:
        self.name, self.style, self.room = name, style, room
        self.template, self.min_likelihood = style.template, style.min_likelihood
        self.caption_tokens = style.caption_tokens

    def generate(
        self,
        messages: Sequence[Message],
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        known: AbstractSet[str] = frozenset(),
    ) -> list[Reply]:
        """`n` new prompts in one batch. The tokens of the meta-prompt, read once, are counted with the first reply."""
        sampler = Sampler(temperature, self.style.top_p, seed)
        novelty = Novelty(self._ends, self.decode, known)
        return self.write(messages, prompt_grammar(max_tokens - 1), n, max_tokens, sampler, novelty)

    def write(
        self,
        messages: Sequence[Message],
        grammar: str,
        n: int,
        max_tokens: int,
        sampler: Sampler,
        novelty: Novelty | None = None,
    ) -> list[Reply]:
        """`n` replies in the language of any `grammar` (llguidance's Lark, regex or JSON form)."""
        started = time.monotonic()
        prefix = self.encode(messages)
        if self.room is not None and len(prefix) + max_tokens > self.room:
            raise LLMError(
                f"the meta-prompt and a reply take {len(prefix) + max_tokens} tokens, and the model reads {self.room}",
                where=self.name,
                remedy="Lower captions.token_budget or search.history",
            )
        mask = GrammarMask(self.token_table, grammar, n, novelty)
        logits, step = self.branch(prefix, n, max_tokens)
        texts = sample(logits, step, mask, max_tokens, sampler)
        seconds = round((time.monotonic() - started) / n, 4)
        return [
            Reply(
                text=self.decode(text.ids).strip(),
                form=self.form,
                finish_reason="stop" if text.complete else "length",
                prompt_tokens=0 if row else len(prefix),
                completion_tokens=len(text.ids),
                seconds=seconds,
            )
            for row, text in enumerate(texts)
        ]

    @cached_property
    def _ends(self) -> Tensor:
        return ends(self.pieces())

    @cached_property
    @abstractmethod
    def token_table(self) -> LLTokenizer:
        """llguidance's view of the tokenizer."""

    @abstractmethod
    def pieces(self) -> Sequence[str]:
        """The text of each token."""

    @abstractmethod
    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the messages: by the chat template, or as plain text that the model goes on with.

        Control tokens inside the messages stay plain text, since captions and class names come from anywhere.
        """

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without control tokens."""

    @abstractmethod
    def branch(self, prefix: Sequence[int], n: int, max_tokens: int) -> tuple[Tensor, Step]:
        """Read `prefix` once: the logits (N, V) of the token after it, and how to go on with `n` texts from there."""

    @abstractmethod
    def token_count(self, text: str) -> int:
        """Tokens of `text`, without start and end tokens."""

    @abstractmethod
    def mean_log_likelihood(self, texts: Sequence[str], context: str = "") -> list[float]:
        """Mean log-likelihood a token (nats) of each text as what follows `context`, or as the start of a document."""
