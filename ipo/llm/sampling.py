"""Sampling several texts at once from one prefix, which is computed once; and the likelihood of given texts.

Shape legend: N texts, T tokens, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from ipo.llm.grammar import GrammarMask

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel


@dataclass(frozen=True)
class SampledText:
    """The token ids of one text, and whether the grammar let it end (else the token limit cut it)."""

    ids: list[int]
    complete: bool


@dataclass(frozen=True)
class Sampler:
    """How the next token is drawn: `temperature` 0 takes the likeliest, `top_p` keeps that much probability."""

    temperature: float
    top_p: float
    seed: int

    def draws(self) -> torch.Generator:
        """A fresh generator on the CPU, so that a seed gives the same draws on every device."""
        return torch.Generator().manual_seed(self.seed)

    def pick(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """One token (N, 1) a row of logits (N, V)."""
        if self.temperature == 0:
            return logits.argmax(dim=-1, keepdim=True)
        shares = (logits / self.temperature).softmax(dim=-1)
        return torch.multinomial(nucleus(shares, self.top_p), 1, generator=generator)


def nucleus(shares: Tensor, top_p: float) -> Tensor:
    """Probabilities (N, V) with all but the smallest set of tokens that reaches `top_p` set to 0 (not renormalised)."""
    if top_p >= 1:
        return shares
    ordered, index = shares.sort(dim=-1, descending=True)
    inside = ordered.cumsum(dim=-1) - ordered < top_p
    return torch.zeros_like(shares).scatter(-1, index, ordered * inside)


@dataclass(frozen=True)
class Prefix:
    """What a model remembers of a text that others begin with: its cache, and logits (1, V) for the next token."""

    cache: DynamicCache
    logits: Tensor
    length: int

    def repeated(self, rows: int) -> tuple[DynamicCache, Tensor]:
        """A cache of its own for so many rows, and the logits (rows, V)."""
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(rows)
        return cache, self.logits.expand(rows, -1)


@torch.inference_mode()
def read_prefix(model: PreTrainedModel, ids: Sequence[int]) -> Prefix:
    """Read a text once, to go on with it as often as needed."""
    output = model(torch.tensor([ids], device=model.device), use_cache=True, logits_to_keep=1)
    return Prefix(output.past_key_values, output.logits[:, -1], len(ids))


@torch.inference_mode()
def sample(
    model: PreTrainedModel, prefix: Prefix, mask: GrammarMask, n: int, max_tokens: int, sampler: Sampler
) -> list[SampledText]:
    """`n` continuations of `prefix` inside the grammar. Equal arguments give equal texts on one machine."""
    generator = sampler.draws()
    cache, logits = prefix.repeated(n)
    texts: list[list[int]] = [[] for _ in range(n)]
    done = [False] * n
    for _ in range(max_tokens):
        logits = logits.float().cpu()
        allowed = mask.allowed(logits.shape[-1])
        tokens = sampler.pick(logits.masked_fill(~allowed, -torch.inf), generator)
        for text, ended, token in zip(texts, done, tokens[:, 0].tolist(), strict=True):
            if not ended:
                text.append(token)
        done = mask.advance(tokens[:, 0].tolist())
        if all(done):
            break
        logits = model(tokens.to(model.device), past_key_values=cache, use_cache=True).logits[:, -1]
    return [SampledText(ids, ended) for ids, ended in zip(texts, done, strict=True)]


@torch.inference_mode()
def mean_log_likelihoods(model: PreTrainedModel, prefix: Prefix, texts: Sequence[Sequence[int]]) -> list[float]:
    """Mean log-likelihood (nats) a token of each text after `prefix`; the padding on the right is not counted."""
    cache, first = prefix.repeated(len(texts))
    ids = pad_sequence([torch.tensor(text) for text in texts], batch_first=True)  # (N, T)
    counted = torch.arange(ids.shape[1]) < torch.tensor([len(text) for text in texts])[:, None]
    seen = torch.cat([torch.ones(len(texts), prefix.length, dtype=torch.bool), counted], dim=1)
    rest = model(ids.to(model.device), past_key_values=cache, attention_mask=seen.long().to(model.device)).logits
    logits = torch.cat([first[:, None], rest[:, :-1]], dim=1).float().cpu()  # (N, T, V)
    losses = cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view(ids.shape)
    return [float(-loss[keep].mean()) for loss, keep in zip(losses, counted, strict=True)]
