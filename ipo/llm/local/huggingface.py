"""Language models on this machine through transformers.

Shape legend: N texts, T tokens, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llguidance.hf
import torch
from llguidance import LLTokenizer
from safetensors import SafetensorError
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers.cache_utils import DynamicCache, DynamicLayer

from ipo.errors import ModelError
from ipo.llm.base import Message, Style
from ipo.llm.local.base import LocalLLM
from ipo.llm.local.sampling import Step
from ipo.llm.local.weights import whole_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prefix:
    """What a model remembers of a text that others begin with: its cache, and logits (1, V) for the next token."""

    cache: DynamicCache
    logits: Tensor
    length: int

    def repeated(self, rows: int, room: int) -> tuple[DynamicCache, Tensor]:
        """A cache of its own for so many rows, each with room for so many more tokens, and the logits (rows, V)."""
        cache = copy.copy(self.cache)
        cache.layers = [_with_room(layer, rows, room) for layer in self.cache.layers]
        return cache, self.logits.expand(rows, -1)


class _RoomyLayer(DynamicLayer):
    """A cache layer that writes new tokens behind the old ones, where a plain one copies all of them at each token."""

    def __init__(self, layer: Any, rows: int, room: int) -> None:
        vars(self).update(vars(layer))
        self._used = int(layer.keys.shape[-2])
        self._all = [_enlarged(part, rows, room) for part in (layer.keys, layer.values)]
        self.keys, self.values = (part[:, :, : self._used] for part in self._all)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append keys and values (N, H, T, D); all of them so far."""
        old, self._used = self._used, self._used + key_states.shape[-2]
        for part, states in zip(self._all, (key_states, value_states), strict=True):
            part[:, :, old : self._used] = states
        keys, values = (part[:, :, : self._used] for part in self._all)
        self.keys, self.values = keys, values
        return keys, values


def _enlarged(states: Tensor, rows: int, room: int) -> Tensor:
    """Keys or values (1, H, T, D) repeated for so many rows, with unused places at the end."""
    _, heads, length, width = states.shape
    whole = states.new_empty(rows, heads, length + room, width)
    whole[:, :, :length] = states
    return whole


def _with_room(layer: Any, rows: int, room: int) -> Any:
    if type(layer) is DynamicLayer:
        return _RoomyLayer(layer, rows, room)
    layer = copy.deepcopy(layer)  # some other kind, such as a sliding window: as transformers does it
    layer.batch_repeat_interleave(rows)
    return layer


class HuggingFaceLLM(LocalLLM):
    """A model and its tokenizer from transformers."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str, style: Style) -> None:
        self._text_config: Any = model.config.get_text_config()
        super().__init__(name, style, getattr(self._text_config, "max_position_embeddings", None))
        self.model, self.tokenizer = model, tokenizer
        self._contexts: dict[str, Prefix] = {}

    @cached_property
    def token_table(self) -> LLTokenizer:
        """llguidance's view of the tokenizer. Takes about half a second."""
        return llguidance.hf.from_tokenizer(self.tokenizer, n_vocab=self._text_config.vocab_size)

    def pieces(self) -> Sequence[str]:
        """The tokens as the tokenizer names them; a full stop is a full stop in all of them."""
        return [name or "" for name in self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))]

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the messages; see `LocalLLM`."""
        if not self.style.chat:
            text = "\n\n".join(message.content for message in messages)
            return list(self.tokenizer(text, split_special_tokens=True)["input_ids"])
        chat = [{"role": message.role, "content": message.content} for message in messages]
        ids: Any = self.tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, sanitize_control_tokens=True, return_dict=False
        )
        return list(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without control tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    @torch.inference_mode()
    def branch(self, prefix: Sequence[int], n: int, max_tokens: int) -> tuple[Tensor, Step]:
        """Logits (N, V) after `prefix`, and how to go on; see `LocalLLM`."""
        cache, logits = self._read(prefix).repeated(n, room=max_tokens)

        @torch.inference_mode()
        def step(tokens: Sequence[int]) -> Tensor:
            ids = torch.tensor(tokens, device=self.model.device)[:, None]
            output = self.model(ids, cache=cache, use_cache=True)
            return torch.as_tensor(output.logits[:, -1])

        return logits, step

    def token_count(self, text: str) -> int:
        """Tokens of `text`, without start and end tokens."""
        return len(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def mean_log_likelihood(self, texts: Sequence[str], context: str = "") -> list[float]:
        """Mean log-likelihood a token (nats) of each text after `context`; see `LocalLLM`."""
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
            self._contexts = {text: self._read(ids)}
        return self._contexts[text]

    @torch.inference_mode()
    def _read(self, ids: Sequence[int]) -> Prefix:
        """Read a text once, to go on with it as often as needed."""
        output = self.model(torch.tensor([ids], device=self.model.device), use_cache=True, logits_to_keep=1)
        return Prefix(output.cache, output.logits[:, -1], len(ids))


@torch.inference_mode()
def mean_log_likelihoods(model: PreTrainedModel, prefix: Prefix, texts: Sequence[Sequence[int]]) -> list[float]:
    """Mean log-likelihood (nats) a token of each text after `prefix`; the padding on the right is not counted."""
    ids = pad_sequence([torch.tensor(text) for text in texts], batch_first=True)  # (N, T)
    cache, first = prefix.repeated(len(texts), room=ids.shape[1])
    counted = torch.arange(ids.shape[1]) < torch.tensor([len(text) for text in texts])[:, None]
    seen = torch.cat([torch.ones(len(texts), prefix.length, dtype=torch.bool), counted], dim=1)
    rest = model(ids.to(model.device), cache=cache, attention_mask=seen.long().to(model.device)).logits
    logits = torch.cat([first[:, None], rest[:, :-1]], dim=1).float().cpu()  # (N, T, V)
    losses = cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view(ids.shape)
    return [float(-loss[keep].mean()) for loss, keep in zip(losses, counted, strict=True)]


def load_huggingface(
    path: str | Path, device: torch.device, dtype: torch.dtype
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer from a folder or a cached hub name. Raises `ModelError` naming what is wrong with it."""
    transformers: Any = import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        model = whole_model(transformers.AutoModelForCausalLM, str(path), dtype=dtype)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"cannot load a language model: {reason}", where=str(path)) from error
    return model.to(device).eval(), tokenizer
