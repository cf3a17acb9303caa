"""Language models on this machine, writing nothing but prompts; what is the same whatever runs the weights.

Shape legend as in `ipo.llm.local.sampling`.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import cached_property

from llguidance import LLTokenizer
from torch import Tensor

from ipo.errors import LLMError
from ipo.llm.base import Message, Reply, ReplyForm, Style
from ipo.llm.local.grammar import TEXT_GRAMMARS, GrammarMask, Novelty, ends, prompt_grammar
from ipo.llm.local.sampling import Sampler, Step, sample
from ipo.llm.phrases import WordLists, content_key, grammar, word_lists

_ATTEMPTS = 4
"""How often a phrase is asked for while what comes says what was said."""


class LocalLLM(ABC):
    """A causal language model under a grammar: every reply is a valid prompt (form `line`), or a text of its form."""

    def __init__(self, name: str, style: Style, room: int | None) -> None:
        self.name, self.style, self.room = name, style, room
        self.template, self.min_likelihood = style.template, style.min_likelihood
        self.caption_tokens = style.caption_tokens
        self.form: ReplyForm = "line"
        self.lists: WordLists | None = None
        if style.grammar == "phrase":
            self.form, self.lists = "phrase", word_lists()
        elif style.grammar != "free":
            self.form = style.grammar

    def generate(
        self,
        messages: Sequence[Message],
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        known: AbstractSet[str] = frozenset(),
        unnamed: Sequence[str] = (),
    ) -> list[Reply]:
        """`n` new prompts in one batch. The tokens of the meta-prompt, read once, are counted with the first reply."""
        sampler = Sampler(temperature, self.style.top_p, seed)
        if self.style.grammar in TEXT_GRAMMARS:
            return self.write(messages, [TEXT_GRAMMARS[self.style.grammar]] * n, max_tokens, sampler)
        if self.lists is not None:
            return self._phrases(messages, self.lists.without(unnamed), n, max_tokens, sampler, known)
        novelty = Novelty(self._ends, self.decode, known)
        return self.write(messages, [prompt_grammar(max_tokens - 1)] * n, max_tokens, sampler, novelty)

    def _phrases(
        self,
        messages: Sequence[Message],
        lists: WordLists,
        n: int,
        max_tokens: int,
        sampler: Sampler,
        known: AbstractSet[str],
    ) -> list[Reply]:
        """`n` phrases, each of its own sample of the lists. One that says what was said is asked for again.

        Equal arguments give equal phrases: the samples are drawn by the sampler's seed.
        """
        shown = "\n".join(message.content for message in messages)
        said = {content_key(text) for text in known}
        replies: dict[int, Reply] = {}
        waiting = list(range(n))
        for attempt in range(_ATTEMPTS):
            draws = [random.Random(f"{sampler.seed} {attempt} {row}") for row in waiting]
            grammars = [grammar(lists.sample(shown, draw)) for draw in draws]
            novelty = Novelty(self._ends, self.decode, said, content_key)
            again = replace(sampler, seed=sampler.seed + attempt)
            written = self.write(messages, grammars, max_tokens, again, novelty)
            for row, reply in zip(waiting, written, strict=True):
                replies[row] = _both(replies[row], reply) if row in replies else reply
            waiting = [row for row in waiting if _says_the_same(replies[row], said)]
            if not waiting:
                break
        return [replies[row] for row in range(n)]

    def write(
        self,
        messages: Sequence[Message],
        grammars: Sequence[str],
        max_tokens: int,
        sampler: Sampler,
        novelty: Novelty | None = None,
    ) -> list[Reply]:
        """A reply in the language of each of any `grammars` (llguidance's Lark, regex or JSON form)."""
        n = len(grammars)
        started = time.monotonic()
        prefix = self.encode(messages)
        if self.room is not None and len(prefix) + max_tokens > self.room:
            raise LLMError(
                f"the meta-prompt and a reply take {len(prefix) + max_tokens} tokens, and the model reads {self.room}",
                where=self.name,
                remedy="Lower captions.token_budget or search.history",
            )
        mask = GrammarMask(self.token_table, grammars, novelty)
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


def _says_the_same(reply: Reply, said: set[str]) -> bool:
    """Whether a phrase says what was said; if not, it is said now."""
    key = content_key(reply.text)
    if key in said:
        return True
    said.add(key)
    return False


def _both(before: Reply, after: Reply) -> Reply:
    """The later reply, with what both took."""
    return replace(
        after,
        prompt_tokens=before.prompt_tokens + after.prompt_tokens,
        completion_tokens=before.completion_tokens + after.completion_tokens,
        seconds=round(before.seconds + after.seconds, 4),
    )
