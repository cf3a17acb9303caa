"""Language models on this machine through transformers, writing nothing but prompts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from llguidance import LLTokenizer
from safetensors import SafetensorError

from ipo.errors import LLMError, ModelError
from ipo.llm.base import Message, Reply, ReplyForm, Style
from ipo.llm.grammar import GrammarMask, Novelty, prompt_grammar, token_table
from ipo.llm.sampling import Prefix, Sampler, mean_log_likelihoods, read_prefix, sample

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class LocalLLM:
    """A causal language model under a grammar: every reply is a valid prompt (form `line`)."""

    form: ReplyForm = "line"

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, style: Style) -> None:
        self.model, self.tokenizer, self.style = model, tokenizer, style
        self.name, self.template, self.min_likelihood = name, style.template, style.min_likelihood
        self.caption_tokens = style.caption_tokens
        self._contexts: dict[str, Prefix] = {}

    @cached_property
    def _table(self) -> LLTokenizer:
        return token_table(self.tokenizer, self.model.config.get_text_config().vocab_size)

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
        novelty = Novelty(self.tokenizer, known)
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
        self._check_room(len(prefix) + max_tokens)
        mask = GrammarMask(self._table, grammar, n, novelty)
        texts = sample(self.model, read_prefix(self.model, prefix), mask, n, max_tokens, sampler)
        seconds = round((time.monotonic() - started) / n, 4)
        return [
            Reply(
                text=str(self.tokenizer.decode(text.ids, skip_special_tokens=True)).strip(),
                form=self.form,
                finish_reason="stop" if text.complete else "length",
                prompt_tokens=0 if row else len(prefix),
                completion_tokens=len(text.ids),
                seconds=seconds,
            )
            for row, text in enumerate(texts)
        ]

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the messages: by the chat template, or as plain text that the model goes on with.

        Control tokens inside the messages stay plain text, since captions and class names come from anywhere.
        """
        if not self.style.chat:
            text = "\n\n".join(message.content for message in messages)
            return list(self.tokenizer(text, split_special_tokens=True)["input_ids"])
        chat = [{"role": message.role, "content": message.content} for message in messages]
        ids: Any = self.tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, sanitize_control_tokens=True, return_dict=False
        )
        return list(ids)

    def token_count(self, text: str) -> int:
        """Tokens of `text`, without start and end tokens."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def mean_log_likelihood(self, texts: Sequence[str], context: str = "") -> list[float]:
        """Mean log-likelihood a token (nats) of each text as what follows `context`, or as the start of a document."""
        if not texts:
            return []
        glue = " " if context else ""
        rows = [self.tokenizer(glue + text, add_special_tokens=False)["input_ids"] for text in texts]
        return mean_log_likelihoods(self.model, self._context(context), rows)

    def _context(self, text: str) -> Prefix:
        """The context as the model remembers it; the last one is kept, since a run judges all in the same."""
        if text not in self._contexts:
            start = self.tokenizer.bos_token_id
            ids = list(self.tokenizer(text)["input_ids"]) or [self.tokenizer.eos_token_id if start is None else start]
            self._contexts = {text: read_prefix(self.model, ids)}
        return self._contexts[text]

    def _check_room(self, tokens: int) -> None:
        room = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        if room and tokens > room:
            raise LLMError(
                f"the meta-prompt and a reply take {tokens} tokens, and the model reads {room}",
                where=self.name,
                remedy="Lower captions.token_budget or search.history",
            )


def load_local(
    path: str | Path, device: torch.device, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer from a folder or a cached hub name. Raises `ModelError` naming what is wrong with it."""
    transformers: Any = import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"cannot load a language model: {reason}", where=str(path)) from error
    return model.to(device).eval(), tokenizer
