"""Sampling several texts at once from one prefix, which is computed once; and the likelihood of given texts.

Shape legend: N texts, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from ipo.llm.grammar import GrammarMask

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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


@torch.inference_mode()
def sample(
    model: PreTrainedModel, prefix: Sequence[int], mask: GrammarMask, n: int, max_tokens: int, sampler: Sampler
) -> list[SampledText]:
    """`n` continuations of `prefix` inside the grammar. Equal arguments give equal texts on one machine."""
    generator = sampler.draws()
    output = model(torch.tensor([prefix], device=model.device), use_cache=True, logits_to_keep=1)
    cache, logits = output.past_key_values, output.logits[:, -1].expand(n, -1)
    cache.batch_repeat_interleave(n)
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
def mean_log_likelihoods(model: PreTrainedModel, start: Sequence[int], texts: Sequence[Sequence[int]]) -> list[float]:
    """Mean log-likelihood (nats) a token of each text after `start`; padding stands on the right and is not counted."""
    rows = [torch.tensor([*start, *text]) for text in texts]
    ids = pad_sequence(rows, batch_first=True).to(model.device)  # (N, T)
    lengths = torch.tensor([len(row) for row in rows])
    attention = torch.arange(ids.shape[1]) < lengths[:, None]
    logits = model(ids, attention_mask=attention.to(model.device).long()).logits[:, :-1].float().cpu()
    targets = ids[:, 1:].cpu()
    losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
    counted = attention[:, 1:] & (torch.arange(1, ids.shape[1]) >= len(start))
    return [float(-loss[keep].mean()) for loss, keep in zip(losses, counted, strict=True)]
