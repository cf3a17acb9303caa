"""Language models in `.gguf` files through llama-cpp-python, for those who have it (extra `gguf`)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ipo.errors import LLMError, ModelError
from ipo.llm.base import Message, Reply, ReplyForm, Style
from ipo.prompt import CLASS_PLACEHOLDER

_CONTEXT = 8192
_JUDGE_CONTEXT = 512
_GRAMMAR = f"""
root ::= " "? (capital | word) (","? " " word){{0,7}} " {CLASS_PLACEHOLDER}" (","? " " word){{0,9}} "."
capital ::= [A-Z] [a-z]{{0,14}}
word ::= "a" | [a-z]{{2,14}} ("-" [a-z]{{2,12}})? "'s"?
"""


class LlamaCppLLM:
    """A model that goes on with a text, under a grammar: every whole reply is a valid prompt (form `line`).

    The words are bounded, the text as a whole is not, so a reply may be cut at the token limit; it says so then.
    """

    form: ReplyForm = "line"

    def __init__(self, path: Path, label: str, style: Style) -> None:
        self._llama: Any = import_module("llama_cpp")
        self._path, self._top_p = path, style.top_p
        self._model = self._load(n_ctx=_CONTEXT)
        self._grammar = self._llama.LlamaGrammar.from_string(_GRAMMAR, verbose=False)
        self.template, self.min_likelihood = style.template, style.min_likelihood
        self.caption_tokens = style.caption_tokens
        self.name = f"{label}, llama-cpp-python {self._llama.__version__}"

    def _load(self, **options: Any) -> Any:
        try:
            return self._llama.Llama(model_path=str(self._path), verbose=False, **options)
        except ValueError as error:
            raise ModelError(f"llama.cpp cannot load this file: {error}", where=str(self._path)) from error

    def generate(
        self,
        messages: Sequence[Message],
        n: int,
        temperature: float,
        max_tokens: int,
        seed: int,
        known: AbstractSet[str] = frozenset(),
    ) -> list[Reply]:
        """`n` prompts, one after the other; llama.cpp keeps the prefix that they share."""
        del known  # its grammars cannot change while a text is written; repeats are turned down later
        text = "\n\n".join(message.content for message in messages)
        # As tokens, because llama.cpp would read control tokens inside a text as such.
        prompt = self._model.tokenize(text.encode(), add_bos=False)
        return [self._reply(prompt, temperature, max_tokens, (seed + row) % 2**32, row == 0) for row in range(n)]

    def _reply(self, prompt: list[int], temperature: float, max_tokens: int, seed: int, first: bool) -> Reply:
        started = time.monotonic()
        try:
            answer = self._model.create_completion(
                prompt,
                max_tokens=max_tokens,
                temperature=temperature,
                top_p=self._top_p,
                top_k=0,
                min_p=0.0,
                repeat_penalty=1.0,
                seed=seed,
                grammar=self._grammar,
            )
        except ValueError as error:
            raise LLMError(
                str(error), where=self.name, remedy="Lower captions.token_budget or search.history"
            ) from error
        choice, usage = answer["choices"][0], answer["usage"]
        return Reply(
            text=choice["text"].strip(),
            form=self.form,
            finish_reason=choice["finish_reason"],
            prompt_tokens=usage["prompt_tokens"] if first else 0,
            completion_tokens=usage["completion_tokens"],
            seconds=round(time.monotonic() - started, 4),
        )

    def token_count(self, text: str) -> int:
        """Tokens of `text`, without a start token."""
        return len(self._model.tokenize(text.encode(), add_bos=False))

    @cached_property
    def _judge(self) -> Any:
        """The same model with a short context that keeps the logits of every token."""
        return self._load(n_ctx=_JUDGE_CONTEXT, logits_all=True)

    def mean_log_likelihood(self, texts: Sequence[str], context: str = "") -> list[float]:
        """Mean log-likelihood a token (nats) of each text as what follows `context`, or as the start of a document."""
        start = self._judge.tokenize(context.encode(), add_bos=False) or [self._judge.token_bos()]
        glue = " " if context else ""
        return [self._mean(start, self._judge.tokenize(f"{glue}{text}".encode(), add_bos=False)) for text in texts]

    def _mean(self, start: list[int], text: list[int]) -> float:
        self._judge.reset()
        self._judge.eval([*start, *text])
        logits = np.asarray(self._judge.scores[len(start) - 1 : len(start) + len(text) - 1], dtype=np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        shares = logits[np.arange(len(text)), text] - np.log(np.exp(logits).sum(axis=1))
        return float(shares.mean())
